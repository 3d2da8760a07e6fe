from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from mmkgc_cli.errors import UsageError
from mmkgc_cli.scoring import load_scorer_file, scaffold
from mmkgc_cli.scoring.scaffold import TEMPLATES, write_scorer
from mmkgc_cli.state.atomic import write_text
from tests.conftest import ROOT


@pytest.mark.parametrize("kind", TEMPLATES)
def test_a_new_scorer_passes_its_own_test_and_the_linters(kind: str, tmp_path: Path) -> None:
    files = write_scorer("mine", kind, tmp_path / "scorers")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", files[1]],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stdout
    shutil.copy(ROOT / "pyproject.toml", tmp_path)
    (tmp_path / "mmkgc_cli").mkdir()  # so that ruff takes its imports as first-party
    for arguments in (["check", "--extend-ignore", "D103"], ["format", "--check"]):
        done = subprocess.run(
            [sys.executable, "-m", "ruff", *arguments, "scorers"],
            cwd=tmp_path, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("what", "wrong"), [("+ entity", "- entity"), ("- relation", "+ relation")]
)
def test_the_test_of_a_new_scorer_fails_where_the_scorer_is_wrong(
    what: str, wrong: str, tmp_path: Path
) -> None:
    scorer, test = write_scorer("mine", "query", tmp_path)
    right = "else entity - relation"
    assert right in scorer.read_text()
    scorer.write_text(scorer.read_text().replace(right, "else entity + relation"))
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", test],
        cwd=tmp_path, capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1, done.stdout
    assert "FAILED" in done.stdout
    assert "test_the_scorer_conforms_to_the_contract" in done.stdout
    assert "sides: " in done.stdout


@pytest.mark.parametrize("kind", TEMPLATES)
@pytest.mark.parametrize("name", ["scorer", "metric", "scorer_config", "a", "x_2_y", "my_scorer"])
def test_every_valid_name_gives_a_file_that_loads(kind: str, name: str, tmp_path: Path) -> None:
    scorer, test = write_scorer(name, kind, tmp_path)
    assert load_scorer_file(scorer).Config().model_dump()["dim"] > 0
    compile(test.read_text(), str(test), "exec")


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("Mine", "expected a name of 1 to 64 lower-case letters"),
        ("../mine", "expected a name"),
        ("a" * 65, "expected a name"),
        ("", "expected a name"),
        ("mine\n", "expected a name"),
        ("class", "is a keyword or a standard module of Python"),
        ("random", "is a keyword or a standard module of Python"),
        ("test_mine", "are tests, not scorers"),
        ("conftest", "are tests, not scorers"),
        ("rotate", r"rotate: taken by .*rotate.py \(built in\); choose another name"),
    ],
)
def test_an_invalid_name_writes_nothing(name: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        write_scorer(name, "query", tmp_path / "scorers")
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("existing", ["mine.py", "test_mine.py"])
def test_nothing_is_overwritten(existing: str, tmp_path: Path) -> None:
    (tmp_path / existing).write_text("work of weeks")
    with pytest.raises(UsageError, match=f"{existing} exists; choose another name"):
        write_scorer("mine", "query", tmp_path)
    assert [(p.name, p.read_text()) for p in tmp_path.iterdir()] == [(existing, "work of weeks")]


def test_a_scorer_without_its_test_is_never_left(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The scorer is written last; after an interruption the same call finishes."""

    def stop(path: Path, text: str) -> None:
        if path.name == "mine.py":
            raise KeyboardInterrupt
        write_text(path, text)

    with monkeypatch.context() as patch:
        patch.setattr(scaffold, "write_text", stop)
        with pytest.raises(KeyboardInterrupt):
            write_scorer("mine", "query", tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["test_mine.py"]
    files = write_scorer("mine", "query", tmp_path)
    assert all(file.is_file() for file in files)
