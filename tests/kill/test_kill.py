from __future__ import annotations

import random
import shutil
import signal
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.training import run_training
from mmkgc_cli.scoring import load_scorer
from tests.kill import launching
from tests.kill.contents import Violation, unsaved_epochs
from tests.kill.jobs import SHARES, Job, few_jobs
from tests.kill.killer import FolderCheck, Tally, check_outcome, kill_repeatedly
from tests.kill.launching import Disturbance, Launcher, Outcome
from tests.kill.run import distribute, job_of, prepare_process, table


@pytest.fixture(scope="module")
def launcher(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Launcher]:
    """A server that forks commands; its environment is that of `make kill`."""
    with pytest.MonkeyPatch.context() as patch:
        folder = tmp_path_factory.mktemp("kill")
        patch.chdir(folder)
        for name in ("OMP_NUM_THREADS", "XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
            patch.setenv(name, "")  # restored at the end
        prepare_process(folder)
        with Launcher() as launcher:
            yield launcher


def test_kills_lose_nothing(tmp_path: Path, launcher: Launcher) -> None:
    """A short `make kill`."""
    tallies = []
    for job, kills in zip(few_jobs(tmp_path, launcher.run, 8), (1, 2, 1, 1, 1), strict=True):
        tally = Tally(job.name)
        kill_repeatedly(job, kills, random.Random(0), tally, launcher, mounts=False)
        assert tally.kills.total() == kills
        tallies.append(tally)
    assert len({name for tally in tallies for name, _ in tally.kills}) > 1
    assert "| all |" in table(tallies)
    assert launcher.orphans() == []


def disturbance(
    name: str, target: str = "process", *, new_interpreter: bool = False
) -> Disturbance:
    return Disturbance(name, target, 0.0, False, new_interpreter, 0.0, 0.0)


@pytest.mark.parametrize(
    ("sent", "outcome", "message"),
    [
        (disturbance("SIGTERM"), Outcome(1, "error: x", True), r"exit code of \[0, 143\]"),
        (disturbance("SIGINT"), Outcome(130, "", True), "ends without a message"),
        (disturbance("SIGINT"), Outcome(130, "error: a\nerror: b", True), "more than one error"),
        (disturbance("SIGTERM"), Outcome(-15, "", True), r"exit code of \[0, 143\]"),
        (disturbance("SIGHUP"), Outcome(0, "Traceback (most", True), "a traceback"),
        (disturbance("SIGKILL"), Outcome(3, "error: x", False), r"exit code of \[0\]"),
        (disturbance("SIGKILL", "child"), Outcome(3, "error: x", True), "a child was killed"),
        (
            disturbance("SIGINT", new_interpreter=True),
            Outcome(1, 'Traceback (most\n  File "x/mmkgc_cli/app.py"', True),
            "a traceback",
        ),
    ],
)
def test_a_wrong_end_is_named(sent: Disturbance, outcome: Outcome, message: str) -> None:
    with pytest.raises(Violation, match=message):
        check_outcome(sent, outcome, Tally("x"))


@pytest.mark.parametrize(
    ("sent", "outcome"),
    [
        (disturbance("SIGTERM"), Outcome(143, "error: terminated", True)),
        (disturbance("SIGINT twice"), Outcome(-signal.SIGINT, "error: interrupted", True)),
        (disturbance("SIGKILL"), Outcome(-signal.SIGKILL, "", True)),
        (disturbance("SIGHUP"), Outcome(0, "done", True)),
        (disturbance("SIGTERM", "child"), Outcome(4, "error: a\nerror: b", True)),
    ],
)
def test_a_right_end_is_accepted(sent: Disturbance, outcome: Outcome) -> None:
    check_outcome(sent, outcome, Tally("x"))


def test_a_process_that_ignores_signals_is_named(
    launcher: Launcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The command is stopped before its signal, so it cannot react."""
    monkeypatch.setattr("tests.kill.launching.SECONDS_TO_STOP", 0.2)
    stopped = disturbance("SIGTERM", new_interpreter=True)
    monkeypatch.setitem(launching.SIGNALS, "SIGTERM", signal.SIGSTOP)
    with pytest.raises(Violation, match="still running after 0 s"):
        launcher.attempt(["doctor"], Path(), stopped)
    assert launcher.orphans() == []


def test_all_kills_are_distributed() -> None:
    jobs = [Job(f"{group} {i}", [group], Path()) for group in SHARES for i in range(3)]
    for kills in (1, 10, 1000):
        counts = distribute(jobs, kills, random.Random(0))
        assert sum(counts.values()) == kills
    groups = Counter({group: sum(counts[f"{group} {i}"] for i in range(3)) for group in SHARES})
    assert all(abs(groups[group] - 10 * share) < 1 for group, share in SHARES.items())


@pytest.fixture
def job(graph: Graph, tmp_path: Path) -> Job:
    write_graph(graph, tmp_path / "graph")
    settings = ["training.epochs=4", "checkpoints.seconds=0", "model.dim=4"]
    config = resolve("rotate", load_scorer("rotate").Config, overrides=settings)
    run = RunDirectory(tmp_path / "run")
    run_training(config, tmp_path / "graph", run)
    arguments = ["train", "rotate", "--graph", "graph", "--run", str(run.path)]
    return Job("train rotate", arguments, run.path, is_resumed=True)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"half", "model.safetensors cannot be read"),
        ("environment.json", b'{"mmkgc": "0', "environment.json cannot be read"),
        ("trace.jsonl", b"{torn\n{}\n", "trace.jsonl cannot be read"),
        ("trace.jsonl", b'{"event": "epoch", "epoch": 2}\n', "has other epochs"),
        ("config.toml", b"seed = 1\n", "config.toml is not what an undisturbed command writes"),
        ("other.txt", b"", "other.txt is not what an undisturbed command writes"),
        ("environment.json", None, "environment.json existed before and is gone"),
        ("checkpoints", None, "checkpoint: went back"),
    ],
)
def test_a_fault_after_a_kill_is_named(
    job: Job, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    check = FolderCheck(job, tmp_path / "nothing")
    check.check_after_kill()
    path = job.folder / name
    if content is not None:
        path.write_bytes(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(Violation, match=message):
        check.check_after_kill()


def test_a_fault_at_the_end_is_named(job: Job, tmp_path: Path) -> None:
    check = FolderCheck(job, tmp_path / "nothing")
    check.check_at_end()
    torn = job.folder / "checkpoints" / ".000000000001.safetensors.host-1.tmp"
    torn.write_bytes(b"")
    with pytest.raises(Violation, match=r"000000000001.safetensors.host-1.tmp was never removed"):
        check.check_at_end()
    (job.folder / "environment.json").unlink()
    with pytest.raises(Violation, match=r"environment.json is missing at the end"):
        check.check_at_end()


def test_epochs_lost_beyond_an_interval_are_named(job: Job) -> None:
    assert unsaved_epochs(job.folder) == 0
    shutil.rmtree(job.folder / "checkpoints")
    with pytest.raises(Violation, match=r"4 epochs \(1 to 4\) over .* are lost"):
        unsaved_epochs(job.folder)


@pytest.mark.parametrize(
    ("command", "copied"),
    [
        (["eval", "old"], ["eval", "new"]),
        (["prepare", "x", "--out", "old", "--clean"], ["prepare", "x", "--out", "new", "--clean"]),
        (["train", "--resume", "old"], ["train", "--resume", "new"]),
        (["train", "rotate", "--overwrite", "--run", "old"], ["train", "rotate", "--run", "new"]),
    ],
)
def test_any_command_is_killed_on_a_copy_of_its_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, command: list[str], copied: list[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "old").mkdir()
    (tmp_path / "old" / "file").write_text("x")
    job = job_of(command, tmp_path / "work")
    folder = tmp_path / "work" / "folder"
    assert job.arguments == [str(folder) if part == "new" else part for part in copied]
    assert folder.is_dir() == ("--overwrite" not in command)
