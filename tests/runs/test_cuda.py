"""Training and ranking with everything on a GPU."""

from __future__ import annotations

import signal
from pathlib import Path

import pytest
import torch

from mmkgc_cli.errors import Interrupted
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.evaluation import run_evaluation
from mmkgc_cli.runs.training import Trained, resume_training, run_training
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.state.trace import read_trace
from mmkgc_cli.state.weights import load_weights
from mmkgc_cli.training.cuda_graph import CapturedProgram, replayed
from tests.training.test_cuda_graph import losses, program_of, same

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

SETTINGS = ["training.epochs=4", "validation.every=2", "model.dim=8", "training.batch_size=64"]


class Silent:
    def begin(self, *args: object) -> None: ...

    def step(self, *args: object) -> None: ...

    def epoch(self, *args: object) -> None: ...


class Stopping(Silent):
    """Asks this process to stop after so many steps."""

    def __init__(self, after: int) -> None:
        self.left = after

    def step(self, *args: object) -> None:
        self.left -= 1
        if self.left == 0:
            signal.raise_signal(signal.SIGTERM)


def train(
    folder: Path, run: Path, device: str, *more: str, watcher: Silent | None = None
) -> Trained:
    settings = [*SETTINGS, f"training.device={device}", *more]
    config = resolve("rotate", load_scorer("rotate").Config, overrides=settings)
    return run_training(config, folder, RunDirectory(run), False, watcher or Silent())


def test_training_repeats_byte_by_byte_and_evaluates_alike_on_both_devices(
    graph: Graph, tmp_path: Path
) -> None:
    folder = tmp_path / "graph"
    write_graph(graph, folder)
    digests = []
    for name in ("a", "b"):
        trained = train(folder, tmp_path / name, "cuda")
        assert trained.valid["mrr"] == trained.outcome.best_mrr
        digests.append(load_weights(tmp_path / name / "model.safetensors")[1]["sha256"])
    assert digests[0] == digests[1]
    there, here = (
        run_evaluation(RunDirectory(tmp_path / "a"), None, "test", device)["metrics"]["test"]
        for device in ("cuda", "cpu")
    )
    found, expected = (of["both"]["realistic"]["mrr"] for of in (there, here))
    assert found == pytest.approx(expected, abs=1e-3)


CAPTURED = [
    [],
    ["optimizer=adamw", "weight_decay=0.1", "negative_side=alternating"],
    ["clip_norm=0.1", "average=0.9"],
]


def told(run: Path) -> list[tuple[bool, str | None]]:
    events = read_trace(run / "trace.jsonl")
    return [(e["captured"], e["reason"]) for e in events if e["event"] == "cuda_graph"]


@pytest.mark.parametrize("settings", CAPTURED)
def test_captured_training_is_the_same_bit_by_bit_and_goes_on_so(
    graph: Graph, tmp_path: Path, settings: list[str]
) -> None:
    write_graph(graph, folder := tmp_path / "graph")
    more = [f"training.{setting}" for setting in settings]
    train(folder, tmp_path / "eager", "cuda", *more, "training.cuda_graph=off")
    train(folder, tmp_path / "captured", "cuda", *more)
    assert told(tmp_path / "eager") == [(False, "training.cuda_graph is off")]
    assert told(tmp_path / "captured") == [(True, None)]
    for after in (2, 7, 13):  # while warming up, after a replay, within the last epoch
        broken = tmp_path / f"broken-{after}"
        with pytest.raises(Interrupted):
            train(folder, broken, "cuda", *more, watcher=Stopping(after))
        resume_training(RunDirectory(broken), None, Silent())
    runs = [path for path in tmp_path.iterdir() if path.name != "graph"]
    digests = {load_weights(path / "model.safetensors")[1]["sha256"] for path in runs}
    assert (len(runs), len(digests)) == (5, 1)


def test_what_is_not_captured_is_said_and_trained(graph: Graph, tmp_path: Path) -> None:
    write_graph(graph, folder := tmp_path / "graph")
    train(folder, tmp_path / "run", "cuda", "schedule.name=linear")
    ((captured, reason),) = told(tmp_path / "run")
    assert not captured
    assert reason is not None
    assert reason.startswith("the learning rate changes")


def test_replayed_steps_have_the_losses_of_those_that_are_not(graph: Graph) -> None:
    plain = program_of(graph, device="cuda", lr=0.05)
    captured = replayed(program_of(graph, device="cuda", lr=0.05), "auto", lambda _: None)
    assert isinstance(captured, CapturedProgram)
    assert losses(plain, 20) == losses(captured, 20)
    assert same(plain, captured)
    state = captured.state_dict()
    rest = losses(plain, 12)
    captured.load_state_dict(state)
    assert losses(captured, 12) == rest  # from a graph made anew
    assert same(plain, captured)


@pytest.mark.parametrize("setting", ["auto", "off"])
def test_nothing_waits_for_the_device_within_an_epoch(graph: Graph, setting: str) -> None:
    program = program_of(graph, device="cuda", lr=0.05)
    steps = replayed(program, setting, lambda _: None)  # type: ignore[arg-type]
    losses(steps, 8)  # the capture itself waits, once
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps.start_epoch()
        watched = [steps.step(index) for index in range(steps.steps_per_epoch)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(value) for terms in watched for value in terms.values())
