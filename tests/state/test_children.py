"""Child processes import nothing from the working directory."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmkgc_cli.state import children
from tests.conftest import ROOT, command

PACKAGE = sorted((ROOT / "mmkgc_cli").rglob("*.py"))
PLANTED = (
    "typer",
    "random",
    "numpy",
    "torch",
    "json",
    "sitecustomize",
    "h5py",
    "pydantic",
    "socket",
)


@pytest.fixture
def planted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working directory with modules that write `ran-NAME` and end the process."""
    folder = tmp_path / "download"
    folder.mkdir()
    for name in PLANTED:
        text = f"open({str(folder / ('ran-' + name))!r}, 'w').close()\nraise SystemExit(77)\n"
        (folder / f"{name}.py").write_text(text)
    monkeypatch.chdir(folder)
    return folder


def ran(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.glob("ran-*"))


def test_a_planted_module_runs_in_an_unprotected_child(planted: Path) -> None:
    """The control: the files would run."""
    subprocess.run([sys.executable, "-c", "import random"], check=False)
    assert ran(planted) == ["ran-random"]


def test_the_command_runs_no_module_of_the_working_directory(planted: Path) -> None:
    done = subprocess.run(command("doctor", "--json"), capture_output=True, text=True, check=False)
    assert (done.returncode, ran(planted)) == (0, []), done.stderr


@pytest.mark.parametrize("search_path", [None, "", "{cwd_first}", "."])
def test_a_child_runs_no_module_of_the_working_directory(
    planted: Path, monkeypatch: pytest.MonkeyPatch, search_path: str | None
) -> None:
    before = os.environ.get("PYTHONPATH", "")
    if search_path is not None:
        entry = search_path.replace("{cwd_first}", "")
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join([entry, before]))
    done = subprocess.run(
        children.python("-c", "import random, numpy, mmkgc_cli.runs.batches.processes"),
        env=children.environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, ran(planted)) == (0, []), done.stderr


def test_a_checkout_in_the_working_directory_is_still_found(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(ROOT)
    assert children.environment()["PYTHONPATH"].split(os.pathsep)[0] == str(ROOT)


def test_the_environment_is_lent_to_libraries_and_taken_back(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.delenv("PYTHONSAFEPATH", raising=False)
    before = dict(os.environ)
    with children.inherited_environment():
        assert os.environ["PYTHONSAFEPATH"] == "1"
    assert dict(os.environ) == before


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_interpreters_are_started_in_one_place(path: Path) -> None:
    if path.name == "children.py":
        return
    for node in ast.walk(ast.parse(path.read_text())):
        assert not (isinstance(node, ast.Attribute) and node.attr == "executable"), path
