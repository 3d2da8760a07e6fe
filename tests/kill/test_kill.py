from __future__ import annotations

import random
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
import torch

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.training import run_training
from mmkgc_cli.scoring import load_scorer
from tests.conftest import Outcome
from tests.kill.contents import Broken, unsaved_epochs
from tests.kill.killer import Job, Tally, Watch, torment
from tests.kill.run import job_of, usual_jobs


def test_kills_lose_nothing(tmp_path: Path, mmkgc: Callable[..., Outcome]) -> None:
    """`make kill`, in short: what is not killed runs in this process, which imports but once."""

    def undisturbed(arguments: Sequence[str]) -> None:
        assert mmkgc(*arguments).code == 0

    rng = random.Random(0)
    threads = torch.get_num_threads()
    try:
        for (job, _), kills in zip(usual_jobs(tmp_path, epochs=60), (2, 3, 1, 3), strict=True):
            tally = Tally(job.arguments[0])
            torment(job, kills, rng, tally, undisturbed, usual=3.0)
            assert tally.places.total() == kills
            assert str(tally).startswith(f"{tally.name}: ")
    finally:
        torch.set_num_threads(threads)


@pytest.fixture
def job(graph: Graph, tmp_path: Path) -> Job:
    write_graph(graph, tmp_path / "graph")
    settings = ["training.epochs=4", "checkpoints.seconds=0", "model.dim=4"]
    config = resolve("rotate", load_scorer("rotate").Config, overrides=settings)
    run = RunDirectory(tmp_path / "run")
    run_training(config, tmp_path / "graph", run)
    return Job(["train", "rotate", "--graph", "graph", "--run", str(run.path)], run.path)


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("model.safetensors", b"half", "model.safetensors cannot be read"),
        ("environment.json", b'{"mmkgc": "0', "environment.json cannot be read"),
        ("trace.jsonl", b"{torn\n{}\n", "trace.jsonl cannot be read"),
        ("trace.jsonl", b'{"event": "epoch", "epoch": 2}\n', "tells of other epochs"),
        ("config.toml", b"seed = 1\n", "config.toml is not what an undisturbed command writes"),
        ("other.txt", b"", "other.txt is not what an undisturbed command writes"),
        ("environment.json", None, "environment.json was there before and is gone"),
        ("checkpoints", None, "checkpoint: went back"),
    ],
)
def test_what_is_wrong_after_a_kill_is_named(
    job: Job, tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    watch = Watch(job, tmp_path / "nothing")
    watch.look()
    path = job.folder / name
    if content is not None:
        path.write_bytes(content)
    elif path.is_dir():
        shutil.rmtree(path)
    else:
        path.unlink()
    with pytest.raises(Broken, match=message):
        watch.look()


def test_what_is_wrong_in_the_end_is_named(job: Job, tmp_path: Path) -> None:
    watch = Watch(job, tmp_path / "nothing")
    watch.end()
    torn = job.folder / "checkpoints" / ".000000000001.safetensors.host-1.tmp"
    torn.write_bytes(b"")
    with pytest.raises(Broken, match=r"000000000001.safetensors.host-1.tmp was never swept"):
        watch.end()
    (job.folder / "environment.json").unlink()
    with pytest.raises(Broken, match=r"environment.json is missing in the end"):
        watch.end()


def test_epochs_lost_beyond_an_interval_are_named(job: Job) -> None:
    assert unsaved_epochs(job.folder) == 0
    shutil.rmtree(job.folder / "checkpoints")
    with pytest.raises(Broken, match=r"4 epochs \(1 to 4\) over .* are lost"):
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
