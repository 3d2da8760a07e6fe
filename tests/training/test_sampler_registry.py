from __future__ import annotations

from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.training.sampler_registry import BUILT_IN, load_sampler, sampler_names
from mmkgc_cli.training.samplers import Sampler

OWN = """
from __future__ import annotations
from pydantic import Field
from mmkgc_cli.training.samplers import Sampler, SamplerConfig

class OwnConfig(SamplerConfig):
    share: float = Field(0.5, ge=0, le=1)

class Own(Sampler):
    Config = OwnConfig
    citation = "a test"

SAMPLER = Own
"""


@pytest.fixture
def plugins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "samplers").mkdir()
    return tmp_path / "samplers"


@pytest.mark.parametrize("name", BUILT_IN)
def test_a_built_in_sampler_is_found_and_cites_its_source(name: str) -> None:
    assert issubclass(load_sampler(name), Sampler)
    assert len(load_sampler(name).citation) > 20


def test_a_file_of_the_working_directory_is_a_sampler(plugins: Path) -> None:
    (plugins / "own.py").write_text(OWN)
    (plugins / "_help.py").write_text("raise RuntimeError")
    assert sampler_names() == ["filtered", "own", "shared"]
    found = load_sampler("own")
    assert found.Config.model_fields["share"].default == 0.5
    assert load_sampler("own") is found


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
        ("def", r"bad\.py: cannot be loaded: SyntaxError: "),
        ("1 / 0", r"bad\.py: cannot be loaded: ZeroDivisionError: division by zero"),
        ("SAMPLER = int", r"bad\.py: expected SAMPLER, a subclass of Sampler, got <class 'int'>"),
        ("", r"bad\.py: expected SAMPLER, a subclass of Sampler, got None"),
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


def test_the_name_of_a_built_in_sampler_is_taken(plugins: Path) -> None:
    (plugins / "shared.py").write_text(OWN)
    with pytest.raises(DataError, match=r"shared\.py: 'shared' is the name of a built-in sampler"):
        load_sampler("shared")
