from __future__ import annotations

import contextlib
import json
import os
import random
import re
import select
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from mmkgc_cli.runs.batches import processes
from mmkgc_cli.runs.batches.folder import BatchFolder, rows
from mmkgc_cli.runs.batches.processes import SWITCH, Server
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


def descendants(pid: int) -> list[int]:
    """All processes below `pid`, which include those of the server."""
    parents: dict[int, int] = {}
    for path in Path("/proc").glob("[0-9]*/stat"):
        with contextlib.suppress(OSError):
            parents[int(path.parent.name)] = int(path.read_text().rpartition(")")[2].split()[1])
    below = [pid]
    for parent in below:
        below += [child for child, owner in parents.items() if owner == parent]
    return below[1:]


def check_each_job_ran_once(folder: Path, failing: int, kills: int = 0) -> None:
    """Each kill may come before the end of a failing job is recorded, which then fails again."""
    found = rows(BatchFolder(folder / "batches" / "r"))
    states = Counter(row["state"] for row in found)
    assert (states["finished"], states["failed"]) == (len(found) - failing, failing)
    for row in found:
        log = Path(folder / row["run"]).parent.joinpath("log.txt").read_text()
        if row["state"] == "failed":
            assert "query: ValueError: no query today; " in row["message"]
            assert 1 <= log.count("$ mmkgc train") <= 1 + kills
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
        running = descendants(process.pid)
        process.kill()
        for pid in running if with_children else []:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        process.wait()
    done = batch(tmp_path, "--jobs", "2")
    assert done.returncode == 4, done.stderr
    assert done.stderr.count("error: graph-broken-") == failing
    check_each_job_ran_once(tmp_path, failing, kills)
    logs = [path.read_text() for path in tmp_path.glob("batches/r/jobs/*/log.txt")]
    again = batch(tmp_path)
    assert again.returncode == 4
    assert [path.read_text() for path in tmp_path.glob("batches/r/jobs/*/log.txt")] == logs


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


needs_server = pytest.mark.skipif(not Server.is_supported(), reason="needs Linux")


@needs_server
def test_the_server_of_a_killed_batch_ends_quietly() -> None:
    """A batch that is killed with unread messages resets the connection."""
    ours, its = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
    program = "from mmkgc_cli.runs.batches import processes as p; p.MODULES = (); p.serve()"
    with its:
        server = subprocess.Popen(
            [sys.executable, "-c", program, str(its.fileno())],
            stderr=subprocess.PIPE, pass_fds=[its.fileno()],
        )  # fmt: skip
    select.select([ours], [], [], 60)  # the message that it is ready
    ours.close()
    assert not server.communicate(timeout=60)[1]
    assert server.returncode == 0


def wait_for(process: subprocess.Popen[Any], folder: Path, pattern: str) -> None:
    """Waits until a file of the batch exists."""
    while not list(folder.glob(f"batches/r/jobs/*/{pattern}")):
        assert process.poll() is None
        time.sleep(0.02)


@needs_server
def test_steps_of_the_server_give_the_files_and_logs_of_new_processes(tmp_path: Path) -> None:
    contents = []
    for value in ("1", "0"):
        folder = tmp_path / value
        folder.mkdir()
        write_batch(folder, "rotate", "broken", epochs=3)
        recipe = folder / "r.toml"
        recipe.write_text(recipe.read_text().replace("[0, 1]", "[0]"))
        # A module of the working directory is never imported.
        (folder / "h5py.py").write_text("raise RuntimeError('imported')")
        done = subprocess.run(
            [sys.executable, "-P", "-m", "mmkgc_cli", "batch", "r.toml"], cwd=folder,
            env=os.environ | {SWITCH: value}, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 4, done.stderr
        check_each_job_ran_once(folder, 1)
        jobs = folder / "batches" / "r" / "jobs"
        names = ("model.safetensors", "ranks-test.tsv")
        files = {p.relative_to(jobs): p.read_bytes() for n in names for p in jobs.glob(f"*/*/{n}")}
        logs = [re.sub(r"[\d,.]+ triples/s", "", p.read_text())
                for p in sorted(jobs.glob("*/log.txt"))]  # fmt: skip
        codes = [json.loads(p.read_text())["code"] for p in sorted(jobs.glob("*/ending.json"))]
        records = [json.loads(p.read_text()) for p in sorted(jobs.glob("*/*/environment.json"))]
        same = [{key: record[key] for key in ("command", "threads")} for record in records]
        contents.append((files, logs, codes, same))
    assert contents[0] == contents[1]


@needs_server
def test_a_batch_without_its_server_stops_its_steps_and_goes_on(tmp_path: Path) -> None:
    write_batch(tmp_path, "rotate", epochs=100_000)
    process = subprocess.Popen(
        command("batch", "r.toml"), cwd=tmp_path, stderr=subprocess.PIPE, text=True
    )
    wait_for(process, tmp_path, "run/checkpoints/*.safetensors")
    server, step = descendants(process.pid)
    os.kill(server, signal.SIGKILL)
    _, err = process.communicate(timeout=60)
    assert process.returncode == 1
    assert "the process that starts the steps of the batch was killed; run the same" in err
    assert not processes._is_running(step)
    states = [row["state"] for row in rows(BatchFolder(tmp_path / "batches" / "r"))]
    assert states == ["interrupted", "waiting"]


@needs_server
def test_the_steps_of_a_killed_batch_keep_the_locks_of_their_jobs(tmp_path: Path) -> None:
    write_batch(tmp_path, "rotate", epochs=100_000)
    process = subprocess.Popen(command("batch", "r.toml"), cwd=tmp_path)
    wait_for(process, tmp_path, "run/checkpoints/*.safetensors")
    server, step = descendants(process.pid)
    process.kill()
    process.wait()
    deadline = time.monotonic() + 20
    while Path(f"/proc/{server}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{server}").exists()
    folder = BatchFolder(tmp_path / "batches" / "r")
    assert [row["state"] for row in rows(folder)] == ["running", "waiting"]
    os.kill(step, signal.SIGKILL)
    while rows(folder)[0]["state"] == "running" and time.monotonic() < deadline:
        time.sleep(0.02)
    assert [row["state"] for row in rows(folder)] == ["interrupted", "waiting"]


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
    # So that early stopping comes much later than the limit.
    recipe = recipe.replace("eval_every = 100", "eval_every = 400")
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


def test_a_step_that_nobody_has_waited_for_has_ended() -> None:
    """Where nothing reaps orphans, as in many containers, they stay as zombies."""
    step = subprocess.Popen(["true"])
    status = Path(f"/proc/{step.pid}/stat")
    while ") Z" not in status.read_text():
        time.sleep(0.01)
    assert not processes._is_running(step.pid)
    step.wait()
    assert not processes._is_running(step.pid)
    assert processes._is_running(os.getpid())
