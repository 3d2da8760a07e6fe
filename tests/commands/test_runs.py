"""`mmkgc runs` as a user meets it."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from mmkgc_cli.commands._runs_view import ago
from mmkgc_cli.commands._shell import out
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.text import byte_text
from tests.conftest import Outcome

Run = Callable[..., Outcome]
NAME = "a [bold]name[/bold]"


@pytest.fixture
def runs(mmkgc: Run, graph: Graph, tmp_path: Path) -> Path:
    """One run that is finished, evaluated and whole, and one that is damaged."""
    write_graph(graph, tmp_path / "graph")
    settings = ["--epochs", "2", "--dim", "4", "--run", f"runs/{NAME}"]
    assert mmkgc("train", "rotate", "--graph", "graph", *settings).code == 0
    assert mmkgc("eval", f"runs/{NAME}").code == 0
    shutil.copytree(tmp_path / "runs" / NAME, tmp_path / "runs" / "broken")
    (tmp_path / "runs" / "broken" / "trace.jsonl").write_text("\x1b[31m\n{}\n")
    return tmp_path / "runs"


def test_list_prints_names_as_they_are_and_damage_below(mmkgc: Run, runs: Path) -> None:
    done = mmkgc("runs", "list")
    assert done.code == 0, done.err
    assert NAME in done.out
    assert "broken: damaged: trace.jsonl:1: not a JSON object" in done.out
    assert "\x1b" not in done.out
    (row,) = (line for line in done.out.splitlines() if line.startswith(NAME))
    assert row.removeprefix(NAME).split()[:4] == ["rotate", "random", "finished", "2"]


def test_list_as_json_can_be_filtered(mmkgc: Run, runs: Path) -> None:
    found = json.loads(mmkgc("runs", "list", "runs", "--json").out)["runs"]
    assert {run["state"] for run in found} == {"finished", "damaged"}
    assert all(0 < run["test_mrr"] < 1 for run in found)
    assert not json.loads(mmkgc("runs", "list", "--scorer", "x", "--json").out)["runs"]
    assert len(json.loads(mmkgc("runs", "list", "--graph", "random", "--json").out)["runs"]) == 2
    assert "no runs" in mmkgc("runs", "list", "--graph", "x").err


@pytest.mark.parametrize("width", [40, 60, 80, 120, 160])
def test_a_narrow_terminal_shows_fewer_columns_and_no_longer_lines(
    mmkgc: Run, runs: Path, monkeypatch: pytest.MonkeyPatch, width: int
) -> None:
    monkeypatch.setattr(out.console, "_width", width)
    done = mmkgc("runs", "list")
    table = done.out.split("\n\n")[0].splitlines()
    assert all(len(line) <= width for line in table), done.out
    assert "finished" in done.out
    assert "damaged" in done.out
    assert ("no room for" in done.err) == (width < 100)


def test_show_says_what_was_set_what_came_of_it_and_what_is_next(mmkgc: Run, runs: Path) -> None:
    done = mmkgc("runs", "show", f"runs/{NAME}")
    assert done.code == 0, done.err
    assert "model.dim = 4  (default 128)" in done.out
    assert "2 of 2; all epochs done" in done.out
    assert "(after epoch 2)" in done.out
    assert f"mmkgc train --resume 'runs/{NAME}' --epochs 4" in done.out
    about = json.loads(mmkgc("runs", "show", f"runs/{NAME}", "--json").out)
    assert about["settings"]["training.epochs"] == {"value": 2, "default": 100}
    assert about["environment"]["threads"] == 2
    assert about["metrics"]["test"]["mrr"] == about["test_mrr"]


def test_show_of_no_run_is_one_line(mmkgc: Run, runs: Path) -> None:
    done = mmkgc("runs", "show", "runs")
    assert done.code == 3
    assert done.err.startswith(
        "error: runs: not a run directory; list the runs of a folder: mmkgc runs list FOLDER"
    )
    assert mmkgc("runs", "list", "nowhere").code == 3


def test_show_of_a_damaged_run_shows_the_rest(mmkgc: Run, runs: Path) -> None:
    (runs / "broken" / "config.toml").write_text("scorer = 3\nmodel = 'x'\n[training]\nx = nan\n")
    done = mmkgc("runs", "show", "runs/broken")
    assert done.code == 0, done.err
    assert "damaged" in done.out
    assert json.loads(mmkgc("runs", "show", "runs/broken", "--json").out)["problems"]


def test_clean_removes_only_with_yes_and_eval_still_works(mmkgc: Run, runs: Path) -> None:
    checkpoints = RunDirectory(runs / NAME).checkpoints
    before = sorted(checkpoints.iterdir())
    done = mmkgc("runs", "clean")
    assert "nothing has been removed; --yes does it" in done.err
    assert "would remove: 1 file" in done.out
    assert sorted(checkpoints.iterdir()) == before
    removed = json.loads(mmkgc("runs", "clean", "--yes", "--json").out)
    assert removed["removed"] is True
    assert removed["bytes"] == sum(f["bytes"] for run in removed["runs"] for f in run["files"]) > 0
    assert [path.name for path in checkpoints.iterdir()] == [".lock"]
    assert mmkgc("eval", f"runs/{NAME}").code == 0
    assert "nothing to remove" in mmkgc("runs", "clean", "--yes").err


@pytest.mark.parametrize("with_old_run", [False, True])
def test_a_run_that_stopped_before_its_settings_can_be_repeated_or_removed(
    mmkgc: Run, runs: Path, with_old_run: bool
) -> None:
    """As a full disk leaves it: the folder and the lock, and no config.toml."""
    run = RunDirectory(runs / "cut")
    train = ("train", "frequency", "--graph", "graph", "--run", run.path)
    if with_old_run:
        assert mmkgc(*train).code == 0
    with run.locked():
        run.create(overwrite=with_old_run)
    done = mmkgc("train", "--resume", run.path)
    assert done.code == 3
    assert "stopped before its settings were written" in done.err
    assert "type its first command again" in done.err
    assert f"mmkgc runs clean --failed {run.path}" in mmkgc("runs", "show", run.path).out
    assert mmkgc("runs", "clean", "--failed", run.path, "--yes").code == 0
    assert not run.path.exists()
    with run.locked():
        run.create(overwrite=False)
    assert mmkgc(*train).code == 0


def test_sizes_and_ages_are_short() -> None:
    assert [byte_text(n) for n in (0, 1023, 1024, 999 * 1024 + 1023, 5 * 2**30)] == [
        "0 B", "1023 B", "1.0 KiB", "1.0 MiB", "5.0 GiB",
    ]  # fmt: skip
    assert [ago(s) for s in (-5, 59, 60, 7_200, 86_400, 200_000)] == [
        "just now", "just now", "1 min ago", "2 h ago", "1 day ago", "2 days ago",
    ]  # fmt: skip
