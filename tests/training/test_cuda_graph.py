from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs import training
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.state.checkpoints import pack
from mmkgc_cli.state.trace import read_trace
from mmkgc_cli.training import program as programs
from mmkgc_cli.training.cuda_graph import WARM_UP, CapturedProgram, StepTerms, with_cuda_graph
from mmkgc_cli.training.link_prediction import LinkPrediction
from tests.training.programs import link_prediction

BATCH = 64  # of 240 triples: three full batches and a smaller one


def program_of(
    graph: Graph, batch_size: int = BATCH, device: str = "cpu", **optimization: Any
) -> LinkPrediction:
    scorer_class: Any = load_scorer("rotate")
    rng = torch.Generator().manual_seed(0)
    n, r = len(graph.entities), len(graph.relations)
    scorer = scorer_class(scorer_class.Config(dim=8), n, r, rng).to(device)
    triples = torch.from_numpy(graph.train).long().to(device)
    return link_prediction(scorer, triples, batch_size=batch_size, optimization=optimization)


class Recorded:
    """Emulates a CUDA graph: replays write to the tensors of the capture.

    A replay runs no code on the host, so the state on the host must not change.
    """

    def __init__(self, program: LinkPrediction | None = None) -> None:
        self.program = program
        self.warm_ups = self.replays = 0

    def host_state(self) -> object:
        if self.program is None:
            return None
        optimization = self.program.optimization
        rates = [group["lr"] for group in optimization.optimizer.param_groups]
        return optimization.steps, rates

    def warm_up(self, work: Callable[[], StepTerms]) -> StepTerms:
        self.warm_ups += 1
        return work()

    def capture(self, work: Callable[[], StepTerms]) -> StepTerms:
        self.work = work
        self.written = {
            "loss": torch.zeros(()), "gradient_norm": torch.zeros((), dtype=torch.float64)
        }  # fmt: skip
        return self.written

    def replay(self) -> None:
        self.replays += 1
        before = self.host_state()
        for name, value in self.work().items():
            self.written[name].copy_(value)
        assert self.host_state() == before


class Refusing(Recorded):
    def capture(self, work: Callable[[], StepTerms]) -> StepTerms:
        raise RuntimeError("operation not permitted when stream is capturing\nmore of it")


def captured_of(program: LinkPrediction) -> tuple[CapturedProgram, list[Recorded], list[Any]]:
    graphs: list[Recorded] = []
    reasons: list[str | None] = []

    def new() -> Recorded:
        graphs.append(Recorded(program))
        return graphs[-1]

    steps = with_cuda_graph(program, "auto", reasons.append, new)
    assert isinstance(steps, CapturedProgram)
    return steps, graphs, reasons


def losses(program: Any, steps: int, first: int = 0) -> list[float]:
    watched: list[Tensor] = []
    for index in range(first, first + steps):
        if index % program.steps_per_epoch == 0:
            program.start_epoch()
        watched.append(program.step(index % program.steps_per_epoch)["loss"])
    return [float(loss) for loss in watched]  # read at the end: none was overwritten


def same(a: Any, b: Any) -> bool:
    left, right = pack(a.state_dict()), pack(b.state_dict())
    return left.keys() == right.keys() and all(torch.equal(left[k], right[k]) for k in left)


@pytest.mark.parametrize(
    "settings",
    [{}, {"optimizer": "adamw", "weight_decay": 0.1}, {"clip_norm": 0.1, "average": 0.9}],
)
@pytest.mark.parametrize("batch_size", [BATCH, 60, 1000])
def test_replayed_steps_are_identical_to_those_of_the_program(
    graph: Graph, batch_size: int, settings: dict[str, Any]
) -> None:
    plain = program_of(graph, batch_size, lr=0.05, **settings)
    steps, _, reasons = captured_of(program_of(graph, batch_size, lr=0.05, **settings))
    assert losses(plain, 18) == losses(steps, 18)
    assert same(plain, steps)
    assert reasons == [None]


def test_smaller_batches_are_never_replayed(graph: Graph) -> None:
    program = program_of(graph)
    steps, graphs, _ = captured_of(program)
    seen: list[int] = []
    plain = program.train_on

    def watched(batch: Tensor) -> dict[str, Tensor]:
        seen.append(len(batch))
        return plain(batch)

    program.train_on = watched  # type: ignore[method-assign]
    losses(steps, 12)
    (graph_of_steps,) = graphs
    assert seen == [64, 64, 64, 48] * 3
    assert (graph_of_steps.warm_ups, graph_of_steps.replays) == (WARM_UP, 9 - WARM_UP)


@pytest.mark.parametrize("stopped_after", [1, 4, 6, 8, 11])
def test_a_captured_training_resumes_from_its_state(graph: Graph, stopped_after: int) -> None:
    whole, _, _ = captured_of(program_of(graph))
    first, _, _ = captured_of(program_of(graph))
    expected = losses(whole, 20)
    assert losses(first, stopped_after) == expected[:stopped_after]
    again, graphs, _ = captured_of(program_of(graph))
    losses(again, 9)  # captures a graph, on tensors that are then replaced
    again.load_state_dict(first.state_dict())
    assert losses(again, 20 - stopped_after, stopped_after) == expected[stopped_after:]
    assert same(whole, again)
    assert len(graphs) == 2


@pytest.mark.parametrize(
    ("settings", "reason"),
    [
        ({"optimizer": "adagrad"}, "adagrad counts its steps on the host"),
        ({"optimizer": "lazy-adam"}, "lazy-adam updates as many rows as the batch contains"),
        ({"schedule": "linear"}, "the learning rate changes"),
        ({"warmup_epochs": 0.5}, "the learning rate changes"),
    ],
)
def test_steps_that_a_graph_would_repeat_wrongly_are_not_captured(
    graph: Graph, settings: dict[str, Any], reason: str
) -> None:
    program, reasons = program_of(graph, **settings), list[str | None]()
    assert with_cuda_graph(program, "auto", reasons.append, Recorded) is program
    assert reasons[0] is not None
    assert reasons[0].startswith(reason)


def test_scorers_references_and_settings_can_prevent_a_capture(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    program, reasons = program_of(graph), list[str | None]()
    assert with_cuda_graph(program, "off", reasons.append, Recorded) is program
    monkeypatch.setattr(type(program.scorer), "capturable", False)
    assert with_cuda_graph(program, "auto", reasons.append, Recorded) is program
    monkeypatch.undo()
    monkeypatch.setattr(programs, "backend_of", lambda *_: ("reference", "no cuda kernel"))
    assert with_cuda_graph(program, "auto", reasons.append, Recorded) is program
    assert reasons == [
        "training.cuda_graph is off",
        "RotatE does not run the same kernels in every step",
        "filtered_negatives runs its reference implementation: no cuda kernel",
    ]


def test_a_step_that_cannot_be_captured_runs_without_a_graph(graph: Graph) -> None:
    reasons: list[str | None] = []
    plain, program = program_of(graph), program_of(graph)
    steps = with_cuda_graph(program, "auto", reasons.append, Refusing)
    assert losses(plain, 12) == losses(steps, 12)
    assert same(plain, steps)
    assert reasons == [
        "torch could not capture the step: operation not permitted when stream is capturing"
    ]


def test_a_run_with_a_graph_has_the_same_weights_and_records_the_graph(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_graph(graph, tmp_path / "graph")
    settings = ["training.epochs=4", "model.dim=8", "training.batch_size=64"]
    config = resolve("rotate", load_scorer("rotate").Config, overrides=settings)

    def with_emulated_graph(config: RunConfig, program: LinkPrediction, record: Any) -> Any:
        return with_cuda_graph(program, config.training.cuda_graph, record, Recorded)

    plain, other = RunDirectory(tmp_path / "plain"), RunDirectory(tmp_path / "other")
    training.run_training(config, tmp_path / "graph", plain)
    monkeypatch.setattr(training, "with_cuda_graph", with_emulated_graph)
    training.run_training(config, tmp_path / "graph", other)
    assert plain.weights.read_bytes() == other.weights.read_bytes()
    assert [e["event"] for e in read_trace(plain.trace)] == ["start", *["epoch"] * 4, "end"]
    events = read_trace(other.trace)
    # The three full batches of the first epoch are warm-ups.
    names = ["start", "epoch", "cuda_graph", *["epoch"] * 3, "end"]
    assert [e["event"] for e in events] == names
    assert (events[2]["captured"], events[2]["reason"]) == (True, None)
