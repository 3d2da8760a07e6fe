from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import pytest

from mmkgc_cli.runs.batches.folder import BatchFolder, rows
from mmkgc_cli.state.trace import read_trace
from tests.batches.small import write_broken, write_graph, write_recipe
from tests.conftest import Outcome, command

RECIPE = """
[batch]
graphs = ["graph"]
scorers = [SCORERS]
seeds = [0, 1]

[settings]
training.epochs = EPOCHS
validation.every = 100
training.batch_size = 16
checkpoints.seconds = 0.05
model.dim = 8
"""
posix = pytest.mark.skipif(os.name != "posix", reason="needs locks and SIGKILL")


def write_batch(folder: Path, *scorers: str, epochs: int = 20) -> None:
    write_graph(folder)
    write_broken(folder)
    names = ", ".join(f'"{scorer}"' for scorer in scorers)
    text = RECIPE.replace("SCORERS", names).replace("EPOCHS", str(epochs))
    write_recipe(folder, text)


def batch(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        command("batch", "r.toml", *arguments), cwd=folder, capture_output=True, text=True,
        check=False,
    )  # fmt: skip


def children(pid: int) -> list[int]:
    found = []
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            if int(path.read_text().rpartition(")")[2].split()[1]) == pid:
                found.append(int(path.parent.name))
    return found


def check_each_job_ran_once(folder: Path, failing: int) -> None:
    found = rows(BatchFolder(folder / "batches" / "r"))
    states = Counter(row["state"] for row in found)
    assert (states["finished"], states["failed"]) == (len(found) - failing, failing)
    for row in found:
        log = Path(folder / row["run"]).parent.joinpath("log.txt").read_text()
        if row["state"] == "failed":
            assert row["message"].endswith("query: ValueError: no query today")
            assert log.count("$ mmkgc train broken --graph") == 1
            continue
        events = [event["event"] for event in read_trace(folder / row["run"] / "trace.jsonl")]
        assert events.count("start") == events.count("end") == 1
        assert log.count("written: ") == 1  # ranked once
        assert 0 < row["metrics"]["mrr"] <= 1


@posix
@pytest.mark.parametrize(
    ("scorers", "failing", "kills", "with_children"),
    [
        pytest.param(("rotate", "broken"), 2, 1, True, id="short"),
        *(
            pytest.param(
                ("transe", "distmult", "complex", "rotate", "pairre", "broken"), 2, 2, also,
                id=f"twelve, {'commands too' if also else 'alone'}", marks=pytest.mark.slow,
            )
            for also in (False, True)
        ),
    ],
)  # fmt: skip
def test_a_batch_that_is_killed_goes_on_and_runs_no_job_twice(
    tmp_path: Path, scorers: tuple[str, ...], failing: int, kills: int, with_children: bool
) -> None:
    write_batch(tmp_path, *scorers, epochs=60)
    rng = random.Random(len(scorers))
    for _ in range(kills):
        process = subprocess.Popen(
            command("batch", "r.toml", "--jobs", "2"), cwd=tmp_path, stderr=subprocess.DEVNULL
        )
        # It waits for a job to train, or to end, and then a moment.
        before = set(tmp_path.glob("batches/r/jobs/*/run/trace.jsonl"))
        while not set(tmp_path.glob("batches/r/jobs/*/run/trace.jsonl")) - before:
            assert process.poll() is None
            time.sleep(0.01)
        time.sleep(rng.uniform(0, 1))
        running = children(process.pid)
        process.kill()
        for pid in running if with_children else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    done = batch(tmp_path, "--jobs", "2")
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("error: graph-broken-") == failing
    check_each_job_ran_once(tmp_path, failing)
    again = batch(tmp_path)
    assert again.returncode == 4
    check_each_job_ran_once(tmp_path, failing)


@posix
def test_two_batches_in_one_directory_share_the_jobs(tmp_path: Path) -> None:
    write_batch(tmp_path, "transe")
    both = [
        subprocess.Popen(
            command("batch", "r.toml", "--json"), cwd=tmp_path, stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
        )
        for _ in range(2)
    ]  # fmt: skip
    said = [json.loads(process.communicate()[0]) for process in both]
    assert [process.returncode for process in both] == [0, 0]
    check_each_job_ran_once(tmp_path, 0)
    # Each waited for the other's, and both know all results.
    assert [{row["state"] for row in of["jobs"]} for of in said] == [{"finished"}] * 2


@posix
def test_a_stopped_batch_saves_and_goes_on(tmp_path: Path) -> None:
    write_batch(tmp_path, "rotate", epochs=100_000)
    process = subprocess.Popen(
        command("batch", "r.toml"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    while not list(tmp_path.glob("batches/r/jobs/*/run/checkpoints/*.safetensors")):
        assert process.poll() is None
        time.sleep(0.02)
    process.send_signal(signal.SIGINT)
    _, err = process.communicate()
    assert process.returncode == 130
    assert "error: stopped by a signal; 0 of 2 jobs have ended" in err
    states = [row["state"] for row in rows(BatchFolder(tmp_path / "batches" / "r"))]
    assert states == ["interrupted", "waiting"]


def test_shards_are_parts_of_the_plan(tmp_path: Path, mmkgc: Callable[..., Outcome]) -> None:
    write_batch(tmp_path, "transe", "rotate", "pairre")

    def names(*arguments: str) -> list[str]:
        done = mmkgc("batch", "r.toml", "--dry-run", "--json", *arguments)
        return [row["job"] for row in json.loads(done.out)["jobs"]]

    parts = [names("--shard", f"{i}/4") for i in range(1, 5)]
    assert sorted(name for part in parts for name in part) == sorted(names())
    assert [len(part) for part in parts] == [2, 2, 1, 1]
    assert mmkgc("batch", "r.toml", "--shard", "5/4").code == 2


@pytest.mark.slow
def test_a_job_that_takes_too_long_is_stopped_and_can_go_on(tmp_path: Path) -> None:
    write_batch(tmp_path, "rotate", epochs=100_000)
    recipe = (tmp_path / "r.toml").read_text().replace("[0, 1]", "[0]")
    (tmp_path / "r.toml").write_text(recipe)
    done = batch(tmp_path, "--max-minutes", "0.1")
    assert done.returncode == 4
    assert "took more than 0.1 min" in done.stderr
    (row,) = rows(BatchFolder(tmp_path / "batches" / "r"))
    epochs = row["epochs"]
    assert epochs > 0
    assert batch(tmp_path).returncode == 4  # left alone
    # It stops by itself, as valid does not get better.
    assert batch(tmp_path, "--retry-failed").returncode == 0
    (row,) = rows(BatchFolder(tmp_path / "batches" / "r"))
    assert (row["attempts"], row["state"], row["message"]) == (2, "finished", "")
    assert row["epochs"] > epochs
