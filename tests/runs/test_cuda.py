"""Training and ranking with everything on a GPU."""

from __future__ import annotations

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
from mmkgc_cli.training.cuda_graph import CapturedProgram, with_cuda_graph
from tests.runs.test_resume import StopAfter
from tests.training.test_cuda_graph import losses, program_of, same

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

SETTINGS = ["training.epochs=4", "validation.every=2", "model.dim=8", "training.batch_size=64"]


def train(folder: Path, run: Path, device: str, *more: str, stop_after: int = 0) -> Trained:
    settings = [*SETTINGS, f"training.device={device}", *more]
    config = resolve("rotate", load_scorer("rotate").Config, overrides=settings)
    return run_training(config, folder, RunDirectory(run), [StopAfter(stop_after)])


def test_training_on_a_gpu_is_reproducible_and_evaluates_alike_on_both_devices(
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
    on_gpu, on_cpu = (
        run_evaluation(RunDirectory(tmp_path / "a"), None, "test", device)["metrics"]["test"]
        for device in ("cuda", "cpu")
    )
    mrr, expected = (m["both"]["realistic"]["mrr"] for m in (on_gpu, on_cpu))
    assert mrr == pytest.approx(expected, abs=1e-3)


CAPTURED = [
    [],
    ["optimizer=adamw", "weight_decay=0.1", "negative_side=alternating"],
    ["clip_norm=0.1", "average=0.9"],
]


def recorded(run: Path) -> list[tuple[bool, str | None]]:
    events = read_trace(run / "trace.jsonl")
    return [(e["captured"], e["reason"]) for e in events if e["event"] == "cuda_graph"]


@pytest.mark.parametrize("settings", CAPTURED)
def test_captured_training_is_bitwise_identical_also_after_a_resume(
    graph: Graph, tmp_path: Path, settings: list[str]
) -> None:
    write_graph(graph, folder := tmp_path / "graph")
    more = [f"training.{setting}" for setting in settings]
    train(folder, tmp_path / "eager", "cuda", *more, "training.cuda_graph=off")
    train(folder, tmp_path / "captured", "cuda", *more)
    assert recorded(tmp_path / "eager") == [(False, "training.cuda_graph is off")]
    assert recorded(tmp_path / "captured") == [(True, None)]
    for after in (2, 7, 13):  # while warming up, after a replay, within the last epoch
        broken = tmp_path / f"broken-{after}"
        with pytest.raises(Interrupted):
            train(folder, broken, "cuda", *more, stop_after=after)
        resume_training(RunDirectory(broken), None)
    runs = [path for path in tmp_path.iterdir() if path.name != "graph"]
    digests = {load_weights(path / "model.safetensors")[1]["sha256"] for path in runs}
    assert (len(runs), len(digests)) == (5, 1)


def test_the_trace_records_why_steps_are_not_captured(graph: Graph, tmp_path: Path) -> None:
    write_graph(graph, folder := tmp_path / "graph")
    train(folder, tmp_path / "run", "cuda", "schedule.name=linear")
    ((captured, reason),) = recorded(tmp_path / "run")
    assert not captured
    assert reason is not None
    assert reason.startswith("the learning rate changes")


def test_replayed_steps_have_the_same_losses(graph: Graph) -> None:
    plain = program_of(graph, device="cuda", lr=0.05)
    captured = with_cuda_graph(program_of(graph, device="cuda", lr=0.05), "auto", lambda _: None)
    assert isinstance(captured, CapturedProgram)
    assert losses(plain, 20) == losses(captured, 20)
    assert same(plain, captured)
    state = captured.state_dict()
    rest = losses(plain, 12)
    captured.load_state_dict(state)
    assert losses(captured, 12) == rest  # from a new graph
    assert same(plain, captured)


@pytest.mark.parametrize("setting", ["auto", "off"])
def test_steps_do_not_wait_for_the_device(graph: Graph, setting: str) -> None:
    program = program_of(graph, device="cuda", lr=0.05)
    steps = with_cuda_graph(program, setting, lambda _: None)  # type: ignore[arg-type]
    losses(steps, 8)  # the capture itself waits once
    torch.cuda.set_sync_debug_mode("error")
    try:
        steps.start_epoch()
        watched = [steps.step(index) for index in range(steps.steps_per_epoch)]
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert all(torch.isfinite(value) for terms in watched for value in terms.values())
