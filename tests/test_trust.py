"""Code of a plugin file runs only after the user has trusted the file."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.plugins import Plugin, trust
from mmkgc_cli.scoring.registry import SCORERS
from mmkgc_cli.scoring.scaffold import write_scorer
from mmkgc_cli.state import children, notices
from tests.conftest import Outcome

Run = Callable[..., Outcome]
QUICK = ["--set", "model.dim=4", "--set", "validation.every=1"]
MARK = "import pathlib\npathlib.Path({!r}).touch()\n"
SAMPLER = """
from mmkgc_cli.sampling.samplers.filtered import FilteredSampler

class Own(FilteredSampler):
    pass

SAMPLER = Own
"""
RECIPE = """
[batch]
graphs = ["graph"]
scorers = ["mine"]
[settings]
model.dim = 4
training.epochs = 1
"""


@pytest.fixture
def planted(mmkgc: Run, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A downloaded folder: a graph, a run, and scorers/mine.py that leaves a mark when it runs."""
    write_graph(graph, tmp_path / "graph")
    write_scorer("mine", "query", tmp_path / "scorers")
    mark, file = tmp_path / "mark", tmp_path / "scorers" / "mine.py"
    future = "from __future__ import annotations\n"
    file.write_text(file.read_text().replace(future, future + MARK.format(str(mark))))
    done = mmkgc("train", "mine", "--graph", "graph", "--run", "run", "--epochs", "2", *QUICK)
    assert done.code == 0, done.err
    assert mark.exists()
    mark.unlink()
    for name in [name for name in sys.modules if name.startswith("mmkgc_plugin_")]:
        del sys.modules[name]  # else importing it again would run nothing
    trust._announced.clear()
    (tmp_path / "recipe.toml").write_text(RECIPE)
    monkeypatch.setenv(trust.VARIABLE, "")
    return mark


RUNS_CODE = [
    ("train", "mine", "--graph", "graph", "--run", "other"),
    ("train", "mine", "--graph", "graph", "--run", "other", "--dry-run"),
    ("train", "--resume", "run", "--epochs", "3"),
    ("eval", "run"),
    ("inspect", "run"),
    ("profile", "mine", "--graph", "graph", "--steps", "1"),
    ("scorers", "check", "mine"),
    ("scorers", "bench", "mine", "--graph", "graph", "--turns", "1", "--steps", "1"),
    ("batch", "recipe.toml", "--dry-run"),
    ("batch", "recipe.toml"),
    ("batch", "recipe.toml", "--executor", "slurm"),
]
SHOWS = [
    ("runs", "show", "run"),
    ("runs", "list", "."),
    ("scorers", "list"),
    ("scorers", "show", "mine"),
    ("audit", "graph"),
    ("doctor",),
    ("plugins", "list"),
    ("--help",),
    ("train", "--help"),
    ("batch", "--help"),
    ("config", "upgrade", "run"),
]


def test_commands_that_need_the_code_of_an_untrusted_file_refuse_in_one_line(
    mmkgc: Run, planted: Path
) -> None:
    for arguments in RUNS_CODE:
        done = mmkgc(*arguments)
        assert (done.code, planted.exists()) == (3, False), arguments
        (line,) = done.err.splitlines()
        assert "scorers/mine.py: the code of this scorer is not trusted" in line
        assert line.endswith("type: mmkgc plugins trust scorers/mine.py")


def test_commands_that_show_run_no_code(mmkgc: Run, planted: Path) -> None:
    for arguments in SHOWS:
        done = mmkgc(*arguments)
        assert (done.code, planted.exists()) == (0, False), (arguments, done.err)


def test_a_trusted_file_is_announced_and_an_edited_one_is_refused_again(
    mmkgc: Run, planted: Path, tmp_path: Path
) -> None:
    assert mmkgc("plugins", "trust", "scorers/mine.py").out.startswith("trusted: ")
    done = mmkgc("eval", "run")
    assert (done.code, planted.exists()) == (0, True)
    assert done.err.splitlines()[0] == "uses the scorer 'mine' of scorers/mine.py (./scorers)"
    file = tmp_path / "scorers" / "mine.py"
    file.write_text(file.read_text() + "\n")
    assert mmkgc("eval", "run").code == 3
    assert mmkgc("plugins", "revoke", "scorers/mine.py").code == 0
    assert trust.trusted_files() == []
    assert mmkgc("plugins", "revoke", "scorers/mine.py").code == 3


@pytest.mark.parametrize("way", ["flag", "variable"])
def test_trust_for_one_command_is_not_remembered(
    mmkgc: Run, planted: Path, monkeypatch: pytest.MonkeyPatch, way: str
) -> None:
    if way == "variable":
        monkeypatch.setenv(trust.VARIABLE, "1")
    assert mmkgc("eval", "run", *(["--trust-plugins"] if way == "flag" else [])).code == 0
    monkeypatch.setenv(trust.VARIABLE, "")
    assert mmkgc("eval", "run").code == 3
    assert trust.trusted_files() == []


def test_own_new_scorers_stay_trusted_while_they_are_edited(
    mmkgc: Run, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(trust.VARIABLE, "")
    write_graph(graph, tmp_path / "graph")
    assert mmkgc("scorers", "new", "mine").code == 0
    file = tmp_path / "scorers" / "mine.py"
    file.write_text(file.read_text() + "\n# edited\n")
    done = mmkgc("train", "mine", "--graph", "graph", "--run", "run", "--epochs", "1", *QUICK)
    assert done.code == 0, done.err
    # The content that was trained with stays trusted, wherever it lies.
    (tmp_path / "elsewhere").mkdir()
    shutil.move(file, tmp_path / "elsewhere" / "mine.py")
    monkeypatch.setenv("MMKGC_SCORERS", str(tmp_path / "elsewhere"))
    assert mmkgc("eval", "run").code == 0
    shown = json.loads(mmkgc("plugins", "list", "--json").out)["trusted"]
    assert [bool(entry["sha256"]) for entry in shown] == [False, True]


def test_a_batch_asks_once_for_all_files_and_its_jobs_do_not_ask(
    mmkgc: Run, planted: Path, tmp_path: Path
) -> None:
    shutil.copy(tmp_path / "scorers" / "mine.py", tmp_path / "scorers" / "other.py")
    (tmp_path / "samplers").mkdir()
    (tmp_path / "samplers" / "own.py").write_text(SAMPLER)
    text = RECIPE.replace('["mine"]', '["mine", "other"]') + 'negatives.sampler = "own"\n'
    (tmp_path / "recipe.toml").write_text(text)
    done = mmkgc("batch", "recipe.toml", "--out", "batch")
    assert done.code == 3
    assert [line.partition(": the")[0] for line in done.err.splitlines()] == [
        "error: scorers/mine.py",
        "error: scorers/other.py",
    ]
    assert mmkgc("plugins", "trust", "scorers/mine.py", "scorers/other.py").code == 0
    done = mmkgc("batch", "recipe.toml", "--out", "batch")
    assert (done.code, done.err.count("samplers/own.py: the code of this sampler")) == (3, 1)
    assert not (tmp_path / "batch").exists()
    assert mmkgc("plugins", "trust", "samplers/own.py").code == 0
    done = mmkgc("batch", "recipe.toml", "--out", "batch")
    assert done.code == 0, done.err


def test_children_may_run_the_planned_content_only(
    planted: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    plugin = Plugin("mine", "./scorers", tmp_path / "scorers" / "mine.py")
    trust.allow_in_children([plugin])
    assert os.environ[trust.VARIABLE] == plugin.sha256()
    SCORERS.load("mine")
    file = tmp_path / "scorers" / "mine.py"
    file.write_text(file.read_text() + "\n")
    with pytest.raises(DataError, match="not trusted"):
        SCORERS.load("mine")


def test_a_damaged_record_is_refused_in_one_line(mmkgc: Run, planted: Path) -> None:
    trust.record_file().parent.mkdir(parents=True, exist_ok=True)
    for content in ("{", "[]", '{"format_version": 2, "files": []}', '{"format_version": 1}'):
        trust.record_file().write_text(content)
        done = mmkgc("eval", "run")
        assert (done.code, len(done.err.splitlines())) == (3, 1)
        assert "trust.json" in done.err


def test_only_the_user_may_write_the_record(planted: Path, tmp_path: Path) -> None:
    trust.trust([tmp_path / "scorers" / "mine.py"])
    assert trust.record_file().stat().st_mode & 0o777 == 0o600


def test_files_that_are_trusted_at_the_same_time_are_all_remembered(tmp_path: Path) -> None:
    files = [tmp_path / f"{number}.py" for number in range(12)]
    for number, file in enumerate(files):
        file.write_text(f"NUMBER = {number}\n")
    with ThreadPoolExecutor(6) as pool:
        list(pool.map(lambda file: trust.trust([file]), files))
    assert {entry.file for entry in trust.trusted_files()} == {str(file) for file in files}


@pytest.mark.parametrize("line", ["mmkgc train ", "mmkgc scorers show mi"])
def test_completion_runs_no_code(planted: Path, line: str) -> None:
    variables = {
        "_MMKGC_COMPLETE": "complete_bash", "COMP_WORDS": line,
        "COMP_CWORD": str(line.count(" ")), "_TYPER_COMPLETE_ARGS": line,
    }  # fmt: skip
    code = "import sys; sys.argv[0] = 'mmkgc'; from mmkgc_cli.app import main; main()"
    done = subprocess.run(
        children.python("-c", code), env=children.environment() | variables,
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr, planted.exists()) == (0, "", False)


def test_a_file_beside_a_plugin_cannot_be_imported_by_it(
    mmkgc: Run, planted: Path, tmp_path: Path
) -> None:
    """So the SHA-256 of the plugin covers all code that trust in it lets run."""
    file = tmp_path / "scorers" / "mine.py"
    (file.parent / "_helper.py").write_text(MARK.format(str(tmp_path / "helper-ran")))
    file.write_text(file.read_text() + "\nimport _helper\n")
    assert mmkgc("plugins", "trust", "scorers/mine.py").code == 0
    done = mmkgc("scorers", "check", "mine")
    assert (done.code, "No module named '_helper'" in done.err) == (3, True), done.err
    assert not (tmp_path / "helper-ran").exists()


def test_installed_plugins_are_announced_but_need_no_permission(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    lines: list[str] = []
    monkeypatch.setattr(notices, "receiver", lines.append)
    monkeypatch.setenv(trust.VARIABLE, "")
    monkeypatch.setattr(trust, "_announced", set())
    file = tmp_path / "package.py"
    installed = Plugin("theirs", "entry point of package", file, "package")
    for _ in range(2):
        trust.require_trust("scorer", installed, b"")
    assert lines == [f"uses the scorer 'theirs' of {file} (entry point of package)"]
