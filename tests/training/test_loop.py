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


class Kept:
    """Remembers what it is told to keep."""

    def __init__(self) -> None:
        self.epochs: list[int] = []
        self.checkpoints: list[tuple[int, int, str]] = []

    def best(self, epoch: int, metrics: dict[str, float]) -> None:
        self.epochs.append(epoch)

    def due(self) -> bool:
        return False

    def checkpoint(self, progress: Progress) -> None:
        self.checkpoints.append((progress.epoch, progress.done, progress.stopped))


class Silent:
    def __init__(self) -> None:
        self.reports: list[EpochReport] = []

    def step(self, epoch: int, done: int, total: int) -> None: ...

    def epoch(self, report: EpochReport) -> None:
        self.reports.append(report)


def run(
    program: Program, schedule: Schedule, mrrs: list[float], stop: StopRequest | None = None
) -> tuple[Outcome, list[int], Silent]:
    keeper = Kept()
    script, observer = iter(mrrs), Silent()
    outcome = train(
        program, schedule, 10, lambda: {"mrr": next(script)}, keeper, observer,
        stop or StopRequest(),
    )  # fmt: skip
    return outcome, keeper.epochs, observer


def test_weights_are_kept_only_when_valid_mrr_improves() -> None:
    outcome, kept, observer = run(
        Program([1.0] * 6), Schedule(6, 1, 0), [0.1, 0.3, 0.2, 0.3, 0.4, 0]
    )
    assert kept == [1, 2, 5]
    assert (outcome.best_epoch, outcome.best_mrr, outcome.epochs) == (5, 0.4, 6)
    assert [r.improved for r in observer.reports] == [True, True, False, False, True, False]


def test_training_stops_when_patience_runs_out() -> None:
    outcome, kept, _ = run(Program([1.0] * 9), Schedule(9, 1, 2), [0.1, 0.3, 0.2, 0.1, 0.9])
    assert outcome.epochs == 4
    assert kept == [1, 2]
    assert "no better valid MRR in 2 validations" in outcome.stopped


def test_the_last_epoch_is_validated_whatever_the_interval() -> None:
    _, kept, observer = run(Program([1.0] * 5), Schedule(5, 2, 0), [0.1, 0.2, 0.3])
    assert kept == [2, 4, 5]
    assert [r.valid is not None for r in observer.reports] == [False, True, False, True, True]


class Seldom(Program):
    """Has a second term in the first of three steps."""

    steps_per_epoch = 5

    def step(self, index: int) -> dict[str, Tensor]:
        found = super().step(index)
        return {**found, "seldom": torch.tensor(1.0 + index)} if index % 3 == 0 else found


def test_a_term_is_averaged_over_the_steps_that_have_it() -> None:
    _, _, observer = run(Seldom([1.0, 2.0]), Schedule(2, 1, 0), [0.1, 0.2])
    assert [r.losses for r in observer.reports] == [
        {"loss": 1.0, "seldom": 2.5},
        {"loss": 2.0, "seldom": 2.5},
    ]


@pytest.mark.parametrize("counted", [True, False])
def test_terms_go_on_being_averaged_after_a_resume(counted: bool) -> None:
    # Where a checkpoint has no counts, each term was in every step before it.
    totals = {"loss": torch.tensor(3.0)} | ({"seldom": torch.tensor(1.0)} if counted else {})
    progress = Progress(1, 3, totals, {"loss": 3, "seldom": 1} if counted else {})
    program, observer = Seldom([1.0]), Silent()
    program.start_epoch()
    train(
        program, Schedule(1, 1, 0), 10, lambda: {"mrr": 0.1}, Kept(), observer, StopRequest(),
        progress,
    )  # fmt: skip
    assert observer.reports[0].losses == {"loss": 1.0, "seldom": 2.5 if counted else 4.0}


def test_a_loss_that_is_not_finite_stops_with_its_name() -> None:
    program = Program([1.0, float("nan"), 1.0])
    with pytest.raises(NonFiniteLoss, match="epoch 2: the term 'loss' became nan"):
        run(program, Schedule(3, 1, 0), [0.1, 0.2, 0.3])
    assert program.epochs == 2


def test_a_signal_ends_the_step_keeps_a_checkpoint_and_asks_to_exit() -> None:
    class Interrupting(Program):
        def step(self, index: int) -> dict[str, Tensor]:
            if self.epochs == 2:
                signal.raise_signal(signal.SIGTERM)
            return super().step(index)

    program = Interrupting([1.0] * 5)
    with StopRequest() as stop:
        keeper = Kept()
        outcome = train(
            program, Schedule(5, 1, 0), 10, lambda: {"mrr": 0.1}, keeper, Silent(), stop
        )
        assert program.done == [0, 1, 0]
        assert (outcome.epochs, keeper.epochs) == (1, [1])
        assert keeper.checkpoints == [(2, 1, "")]
        with pytest.raises(Interrupted) as caught:
            stop.raise_if_asked("stopped")
    assert caught.value.exit_code == 143


def test_a_second_interrupt_stops_at_once_and_handlers_are_put_back() -> None:
    before = signal.getsignal(signal.SIGINT)
    with StopRequest() as stop:
        signal.raise_signal(signal.SIGINT)
        assert stop.asked
        with pytest.raises(KeyboardInterrupt):
            signal.raise_signal(signal.SIGINT)
    assert signal.getsignal(signal.SIGINT) is before


def program_of(scorer: Scorer, triples: Tensor, **changes: int) -> LinkPrediction:
    return link_prediction(scorer, triples, optimization={"lr": 0.05}, **changes)


def weights_after(graph: Graph, steps: int, seed: int) -> dict[str, Tensor]:
    scorer_class = load_scorer("rotate")
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
    scorer_class = load_scorer("rotate")
    scorer = scorer_class(scorer_class.Config(dim=4), 40, 5, torch.Generator())
    triples = torch.from_numpy(graph.train).long()
    program = program_of(scorer, triples, batch_size=50)
    assert program.steps_per_epoch == -(-len(triples) // 50)
    program.start_epoch()
    assert torch.equal(program._order.sort().values, torch.arange(len(triples)))


def test_training_lowers_the_loss(graph: Graph) -> None:
    scorer_class = load_scorer("rotate")
    scorer = scorer_class(scorer_class.Config(dim=16), 40, 5, torch.Generator().manual_seed(0))
    program = program_of(scorer, torch.from_numpy(graph.train).long())
    losses = []
    for _ in range(30):
        program.start_epoch()
        steps = [program.step(i)["loss"].item() for i in range(program.steps_per_epoch)]
        losses.append(sum(steps) / len(steps))
    assert losses[-1] < 0.5 * losses[0]
