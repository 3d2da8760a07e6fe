"""Child processes import nothing from the working directory."""

from __future__ import annotations

import ast
import os
import subprocess
import sys
from pathlib import Path

import pytest

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
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

RECIPE = """
[batch]
graphs = ["graph"]
scorers = ["transe"]
[settings]
model.dim = 4
training.epochs = 1
"""


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
        if isinstance(node, ast.ImportFrom) and node.module == "sys":
            assert "executable" not in {alias.name for alias in node.names}, path


@pytest.mark.parametrize("path", PACKAGE, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_program_is_started_by_a_bare_name(path: Path) -> None:
    """A bare name would be searched in the working directory too, on Windows."""
    for node in ast.walk(ast.parse(path.read_text())):
        if not isinstance(node, ast.Call):
            continue
        called = ast.unparse(node.func)
        assert called not in {"os.system", "os.popen", "os.execvp", "os.spawnvp"}, path
        if called in {"subprocess.run", "subprocess.Popen", "subprocess.check_output"}:
            assert not isinstance(node.args[0], ast.List | ast.Constant), f"{path}:{node.lineno}"


def test_children_of_libraries_are_protected_too(planted: Path) -> None:
    """As wandb does, a library starts this interpreter without -P."""
    library = (
        "import subprocess, sys, mmkgc_cli.app\n"
        "from mmkgc_cli import __main__\n"
        "child = [sys.executable, '-c', 'import random']\n"
        "mmkgc_cli.app.main = lambda: subprocess.run(child, check=True)\n"
        "__main__.main()\n"
    )
    done = subprocess.run(children.python("-c", library), capture_output=True, check=False)
    assert (done.returncode, ran(planted)) == (0, []), done.stderr


@pytest.mark.skipif(os.name != "posix", reason="makes an executable script")
@pytest.mark.parametrize("entry", ["", ".", "bin"])
def test_programs_are_not_found_through_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, entry: str
) -> None:
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, tmp_path / "bin"):
        folder.mkdir(exist_ok=True)
        (folder / "own-program").write_text("#!/bin/sh\n")
        (folder / "own-program").chmod(0o755)
    monkeypatch.setenv("PATH", entry)
    assert children.program("own-program") is None
    monkeypatch.setenv("PATH", os.pathsep.join([entry, str(tmp_path / "bin")]))
    assert children.program("own-program") == str(tmp_path / "bin" / "own-program")


@pytest.mark.skipif(os.name != "posix", reason="makes an executable script")
@pytest.mark.skipif(children.program("git") is None, reason="needs git")
def test_git_runs_no_program_of_a_repository_and_reads_no_other(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    mark, script, root = tmp_path / "mark", tmp_path / "monitor", tmp_path / "checkout"
    script.write_text(f"#!/bin/sh\ntouch {mark}\n")
    script.chmod(0o755)
    git = str(children.program("git"))
    subprocess.run([git, "init", "-q", root], check=True)
    subprocess.run([git, "-C", root, "config", "core.fsmonitor", script], check=True)
    subprocess.run([git, "-C", root, "status"], check=True, capture_output=True)
    assert mark.exists()  # the control: git would run it
    mark.unlink()
    monkeypatch.setenv("GIT_DIR", str(tmp_path / "other"))
    call = children.git(root, "status", "--porcelain")
    assert call is not None
    done = subprocess.run(call[0], env=call[1], capture_output=True, check=False)
    assert (done.returncode, mark.exists()) == (0, False), done.stderr


@pytest.mark.parametrize("server", ["0", "1"])
@pytest.mark.slow
def test_a_batch_runs_no_module_of_the_working_directory(
    planted: Path, graph: Graph, monkeypatch: pytest.MonkeyPatch, server: str
) -> None:
    write_graph(graph, planted / "graph")
    (planted / "recipe.toml").write_text(RECIPE)
    monkeypatch.setenv("MMKGC_BATCH_SERVER", server)
    done = subprocess.run(
        command("batch", "recipe.toml", "--out", "batch"),
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, ran(planted)) == (0, []), done.stderr


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of submitit
def test_a_task_of_slurm_runs_no_module_of_the_working_directory(
    planted: Path, graph: Graph
) -> None:
    """Both the process that submitit starts and the shard that it runs."""
    submitit = pytest.importorskip("submitit")
    from mmkgc_cli.runs.batches.slurm import submit

    write_graph(graph, planted / "graph")
    (planted / "recipe.toml").write_text(RECIPE)
    folder = planted / "batch"
    (number,) = submit(planted / "recipe.toml", folder, 1, 5.0, retry=False, cluster="local")
    task = submitit.local.local.LocalJob(folder / "slurm", number)
    assert (task.result(), ran(planted)) == (0, [])
