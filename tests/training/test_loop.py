from __future__ import annotations

import signal
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli.errors import Interrupted
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.scoring import Scorer, load_scorer
from mmkgc_cli.state.signals import StopRequest
from mmkgc_cli.training.link_prediction import LinkPrediction
from mmkgc_cli.training.loop import (
    Callback,
    EpochReport,
    NonFiniteLoss,
    Outcome,
    Progress,
    Schedule,
    train,
)
from tests.training.programs import link_prediction


class Program:
    """A step program whose loss is scripted."""

    steps_per_epoch = 2

    def __init__(self, losses: list[float]) -> None:
        self.losses = losses
        self.done: list[int] = []
        self.epochs = 0

    def start_epoch(self) -> None:
        self.epochs += 1

    def step(self, index: int) -> dict[str, Tensor]:
        self.done.append(index)
        return {"loss": torch.tensor(self.losses[self.epochs - 1])}

    def state_dict(self) -> dict[str, Any]:
        return {"epochs": self.epochs, "done": list(self.done)}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.epochs, self.done = state["epochs"], list(state["done"])


class Recorder(Callback):
    """Records the calls of the loop."""

    def __init__(self) -> None:
        self.best_epochs: list[int] = []
        self.checkpoints: list[tuple[int, int, str]] = []
        self.reports: list[EpochReport] = []

    def best(self, epoch: int, metrics: dict[str, float]) -> None:
        self.best_epochs.append(epoch)

    def epoch(self, report: EpochReport) -> None:
        self.reports.append(report)

    def checkpoint(self, progress: Progress, *, required: bool) -> None:
        if required:
            self.checkpoints.append((progress.epoch, progress.done, progress.stopped))


def run(program: Program, schedule: Schedule, mrrs: list[float]) -> tuple[Outcome, Recorder]:
    script, recorder = iter(mrrs), Recorder()
    outcome = train(
        program, schedule, [recorder], StopRequest(), rows=10,
        validate=lambda: {"mrr": next(script)},
    )  # fmt: skip
    return outcome, recorder


def test_weights_are_kept_only_when_valid_mrr_improves() -> None:
    outcome, recorder = run(Program([1.0] * 6), Schedule(6, 1, 0), [0.1, 0.3, 0.2, 0.3, 0.4, 0])
    assert recorder.best_epochs == [1, 2, 5]
    assert (outcome.best_epoch, outcome.best_mrr, outcome.epochs) == (5, 0.4, 6)
    assert [r.improved for r in recorder.reports] == [True, True, False, False, True, False]


def test_training_stops_when_patience_runs_out() -> None:
    outcome, recorder = run(Program([1.0] * 9), Schedule(9, 1, 2), [0.1, 0.3, 0.2, 0.1, 0.9])
    assert outcome.epochs == 4
    assert recorder.best_epochs == [1, 2]
    assert "no better valid MRR in 2 validations" in outcome.stopped


def test_the_last_epoch_is_validated_whatever_the_interval() -> None:
    _, recorder = run(Program([1.0] * 5), Schedule(5, 2, 0), [0.1, 0.2, 0.3])
    assert recorder.best_epochs == [2, 4, 5]
    assert [r.valid is not None for r in recorder.reports] == [False, True, False, True, True]


class Seldom(Program):
    """Returns a second term in every third step."""

    steps_per_epoch = 5

    def step(self, index: int) -> dict[str, Tensor]:
        terms = super().step(index)
        return {**terms, "seldom": torch.tensor(1.0 + index)} if index % 3 == 0 else terms


def test_a_term_is_averaged_over_the_steps_that_have_it() -> None:
    _, recorder = run(Seldom([1.0, 2.0]), Schedule(2, 1, 0), [0.1, 0.2])
    assert [r.losses for r in recorder.reports] == [
        {"loss": 1.0, "seldom": 2.5},
        {"loss": 2.0, "seldom": 2.5},
    ]


@pytest.mark.parametrize("counted", [True, False])
def test_means_of_terms_include_steps_before_a_resume(counted: bool) -> None:
    # Without counts in the checkpoint, each term was returned by every step.
    totals = {"loss": torch.tensor(3.0)} | ({"seldom": torch.tensor(1.0)} if counted else {})
    progress = Progress(1, 3, totals, {"loss": 3, "seldom": 1} if counted else {})
    program, recorder = Seldom([1.0]), Recorder()
    program.start_epoch()
    train(program, Schedule(1, 1, 0), [recorder], StopRequest(), rows=10, progress=progress)
    assert recorder.reports[0].losses == {"loss": 1.0, "seldom": 2.5 if counted else 4.0}


def test_a_loss_that_is_not_finite_is_an_error_with_its_name() -> None:
    program = Program([1.0, float("nan"), 1.0])
    with pytest.raises(NonFiniteLoss, match="epoch 2: the loss term 'loss' is nan"):
        run(program, Schedule(3, 1, 0), [0.1, 0.2, 0.3])
    assert program.epochs == 2


def test_a_signal_stops_after_the_step_with_a_checkpoint() -> None:
    class Interrupting(Program):
        def step(self, index: int) -> dict[str, Tensor]:
            if self.epochs == 2:
                signal.raise_signal(signal.SIGTERM)
            return super().step(index)

    program = Interrupting([1.0] * 5)
    with StopRequest() as stop:
        recorder = Recorder()
        outcome = train(
            program, Schedule(5, 1, 0), [recorder], stop, rows=10, validate=lambda: {"mrr": 0.1}
        )
        assert program.done == [0, 1, 0]
        assert (outcome.epochs, outcome.interrupted, recorder.best_epochs) == (1, True, [1])
        assert recorder.checkpoints == [(2, 1, "")]
        with pytest.raises(Interrupted, match="interrupted; resume") as caught:
            stop.raise_if_asked("interrupted", fix="resume")
    assert caught.value.exit_code == 143


def test_a_second_interrupt_stops_immediately_and_handlers_are_restored() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def program_of(scorer: Scorer, triples: Tensor, **changes: Any) -> LinkPrediction:
    return link_prediction(scorer, triples, optimization={"lr": 0.05}, **changes)


def weights_after(graph: Graph, steps: int, seed: int) -> dict[str, Tensor]:
    scorer_class: Any = load_scorer("rotate")
    rng = torch.Generator().manual_seed(seed)
    n, r = len(graph.entities), len(graph.relations)
    scorer = scorer_class(scorer_class.Config(dim=8), n, r, rng)
    program = program_of(scorer, torch.from_numpy(graph.train).long(), seed=seed)
    for index in range(steps):
        if index % program.steps_per_epoch == 0:
            program.start_epoch()
        program.step(index % program.steps_per_epoch)
    return {name: value.clone() for name, value in scorer.state_dict().items()}


def test_the_same_seed_gives_the_same_weights(graph: Graph) -> None:
    first, again, other = (weights_after(graph, 12, seed) for seed in (1, 1, 2))
    assert all(torch.equal(first[name], again[name]) for name in first)
    assert not torch.equal(first["entities"], other["entities"])


def test_an_epoch_visits_every_triple_once(graph: Graph) -> None:
    scorer_class: Any = load_scorer("rotate")
    scorer = scorer_class(scorer_class.Config(dim=4), 40, 5, torch.Generator())
    triples = torch.from_numpy(graph.train).long()
    program = program_of(scorer, triples, batch_size=50)
    assert program.steps_per_epoch == -(-len(triples) // 50)
    program.start_epoch()
    assert torch.equal(program._order.sort().values, torch.arange(len(triples)))


def test_training_lowers_the_loss(graph: Graph) -> None:
    scorer_class: Any = load_scorer("rotate")
    scorer = scorer_class(scorer_class.Config(dim=16), 40, 5, torch.Generator().manual_seed(0))
    program = program_of(scorer, torch.from_numpy(graph.train).long())
    losses = []
    for _ in range(30):
        program.start_epoch()
        steps = [program.step(i)["loss"].item() for i in range(program.steps_per_epoch)]
        losses.append(sum(steps) / len(steps))
    assert losses[-1] < 0.5 * losses[0]
