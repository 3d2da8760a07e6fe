from __future__ import annotations

from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.plugins import discover
from mmkgc_cli.sampling.contract import Sampler
from mmkgc_cli.sampling.registry import SAMPLERS, load_sampler

OWN = """
from __future__ import annotations
from pydantic import Field
from mmkgc_cli.sampling.contract import Sampler, SamplerConfig

class OwnConfig(SamplerConfig):
    share: float = Field(0.5, ge=0, le=1)

class Own(Sampler):
    Config = OwnConfig
    citation = "a test"

    def draw(self, positives, scorer):
        return None

SAMPLER = Own
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samplers").mkdir()
    return tmp_path / "samplers"


def test_a_file_of_the_working_directory_is_a_sampler(plugins: Path) -> None:
    (plugins / "own.py").write_text(OWN)
    (plugins / "_help.py").write_text("raise RuntimeError")
    assert list(discover(SAMPLERS).plugins) == ["filtered", "shared", "own"]
    plugin = load_sampler("own")
    assert plugin.Config.model_fields["share"].default == 0.5
    assert load_sampler("own") is plugin


def test_a_name_that_is_not_there_gets_the_nearest(plugins: Path) -> None:
    (plugins / "own.py").write_text(OWN)
    with pytest.raises(
        UsageError, match=r"no sampler is called 'filterd'; did you mean 'filtered'"
    ):
        load_sampler("filterd")
    for name in ("", "../samplers/own", "own.py", "_help"):
        with pytest.raises(UsageError, match="no sampler is called"):
            load_sampler(name)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("def", r"samplers/bad\.py:1: not valid Python: "),
        ("1 / 0", r"samplers/bad\.py:1: cannot be imported: ZeroDivisionError: division by zero"),
        (
            "SAMPLER = int",
            r"bad\.py:1: SAMPLER: expected a subclass of mmkgc_cli.sampling.contract.",
        ),
        ("", r"bad\.py: SAMPLER: expected a subclass of .*Sampler, got nothing"),
        (
            OWN.replace("def draw", "def drawn"),
            r"bad\.py:9: Own\.draw: expected a method draw\(self, positives, scorer\), got no",
        ),
        (
            OWN.replace("draw(self, positives, scorer)", "draw(self, positives)"),
            r"bad\.py:13: Own\.draw: expected the arguments \(self, positives, scorer\), got",
        ),
        (
            OWN.replace("SamplerConfig)", "object)"),
            r"bad\.py:10: Own\.Config: expected a subcl",
        ),
        (OWN.replace('"a test"', '""'), r"bad\.py:11: Own\.citation: expected a text that names"),
    ],
)
def test_a_broken_plugin_is_one_line_and_harms_no_other(
    plugins: Path, text: str, message: str
) -> None:
    (plugins / "bad.py").write_text(text)
    for _ in range(2):
        with pytest.raises(DataError, match=message):
            load_sampler("bad")
    assert issubclass(load_sampler("shared"), Sampler)


def test_the_first_of_a_name_is_used_and_folders_can_be_listed(
    plugins: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for folder, name in (("samplers", "shared"), ("more", "mine"), ("samplers", "mine")):
        (tmp_path / folder).mkdir(exist_ok=True)
        (tmp_path / folder / f"{name}.py").write_text(f"# {folder}\n{OWN}")
    monkeypatch.setenv("MMKGC_SAMPLERS", str(tmp_path / "more"))
    plugin = discover(SAMPLERS)
    assert plugin.plugins["mine"].origin == "./samplers"
    assert [name for name, lines in plugin.taken.items() for _ in lines] == ["shared", "mine"]
    assert load_sampler("shared").__module__ == "mmkgc_cli.sampling.samplers.shared"
    (plugins / "mine.py").unlink()
    assert discover(SAMPLERS).plugins["mine"].origin == "MMKGC_SAMPLERS"
