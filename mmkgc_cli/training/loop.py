"""The loop: epochs of a step program, validation, early stopping, stopping on signals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, Protocol

from torch import Tensor

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.state.signals import StopRequest

FINISHED = "all epochs done"


class StepProgram(Protocol):
    """What the loop drives: a state and a step over numbered batches."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch."""

    def start_epoch(self) -> None:
        """Called once before the steps of an epoch."""

    def step(self, index: int) -> dict[str, Tensor]:
        """Does step `index` and returns what to watch: scalars, of which ``loss`` is one.

        They must be finite; means over the epoch are reported. Must not wait for the device.
        """

    def state_dict(self) -> dict[str, Any]:
        """All that later steps depend on, as nested dicts, lists, numbers, strings and tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Goes on as the program did that gave `state`, in the middle of an epoch too."""


class Observer(Protocol):
    """What the loop reports to: a progress display, a trace."""

    def step(self, epoch: int, done: int, total: int) -> None:
        """Called after each step."""

    def epoch(self, report: EpochReport) -> None:
        """Called after each epoch, with validation where there was one."""


@dataclass(frozen=True)
class Schedule:
    """How long to train and when to validate; `patience` 0 never stops early.

    Without `selects`, what is measured on the way is reported and decides nothing.
    """

    epochs: int
    eval_every: int
    patience: int
    selects: bool = True


@dataclass(frozen=True)
class EpochReport:
    """What happened in one epoch (counted from 1)."""

    epoch: int
    losses: dict[str, float]
    epoch_seconds: float
    triples_per_second: float
    valid: dict[str, float] | None = None
    improved: bool = False


@dataclass
class Outcome:
    """How training ended."""

    epochs: int = 0
    best_epoch: int = 0
    best_mrr: float = -math.inf
    stopped: str = FINISHED


@dataclass
class Progress:
    """How far training is: what a checkpoint holds besides the state of the program."""

    epoch: int = 1  # the one that runs, or comes next
    done: int = 0  # its steps so far
    totals: dict[str, Tensor] = field(default_factory=dict)  # of their loss terms
    terms: dict[str, int] = field(default_factory=dict)  # how many went into each
    seconds: float = 0.0  # that they took
    best_epoch: int = 0
    best_mrr: float = -math.inf
    stale: int = 0  # validations since
    stopped: str = ""  # why training is over, once it is

    def state_dict(self) -> dict[str, Any]:
        """As plain values."""
        return dict(vars(self))


class Keeper(Protocol):
    """Where the loop leaves what must not be lost."""

    def best(self, epoch: int, metrics: dict[str, float]) -> None:
        """Keeps the present weights, which rank valid better than any before."""

    def due(self) -> bool:
        """Whether it is time for a checkpoint."""

    def checkpoint(self, progress: Progress) -> None:
        """Keeps everything, to go on from."""


class NonFiniteLoss(MmkgcError):
    """The loss became NaN or infinite; the best weights and the last checkpoint are kept."""


def train(
    program: StepProgram,
    schedule: Schedule,
    n_triples: int,
    validate: Callable[[], dict[str, float]] | None,
    keeper: Keeper,
    observer: Observer,
    stop: StopRequest,
    progress: Progress | None = None,
) -> Outcome:
    """Runs the program and keeps the weights that rank valid best, where the schedule selects.

    A signal ends the step that runs and no more: what came of it is kept in a checkpoint, without a
    validation that an undisturbed training would not have made.

    Args:
        program: what a step does.
        schedule: epochs, validation interval and patience (in validations).
        n_triples: triples in an epoch, for the throughput.
        validate: gives valid metrics, with ``mrr`` where the schedule selects; None never does.
        keeper: saves weights and checkpoints.
        observer: is told of steps and epochs.
        stop: looked at after each step.
        progress: that of the checkpoint which `program` was loaded from.

    Raises:
        NonFiniteLoss: naming the term and the epoch.
    """
    at = progress or Progress()
    while at.epoch <= schedule.epochs and not at.stopped and not stop.asked:
        if not _run_epoch(program, at, keeper, observer, stop):
            break
        epoch, losses = at.epoch, _means(at)
        due = epoch == schedule.epochs or epoch % schedule.eval_every == 0
        valid = validate() if due and validate else None
        improved = False
        if valid is not None and schedule.selects:
            improved = valid["mrr"] > at.best_mrr
            at.stale += 1
        if valid is not None and improved:
            at.best_epoch, at.best_mrr, at.stale = epoch, valid["mrr"], 0
            keeper.best(epoch, valid)
        rate = n_triples / at.seconds
        observer.epoch(EpochReport(epoch, losses, at.seconds, rate, valid, improved))
        at.epoch, at.done, at.totals, at.terms, at.seconds = epoch + 1, 0, {}, {}, 0.0
        if epoch == schedule.epochs:
            at.stopped = FINISHED
        elif schedule.patience and at.stale >= schedule.patience:
            at.stopped = f"no better valid MRR in {at.stale} validations"
        if at.stopped or keeper.due():
            keeper.checkpoint(at)
    if stop.asked and not at.stopped:
        _means(at)  # must be finite
        keeper.checkpoint(at)
    stopped = at.stopped or f"signal {stop.signal_number}"
    return Outcome(at.epoch - 1, at.best_epoch, at.best_mrr, stopped)


def _run_epoch(
    program: StepProgram, at: Progress, keeper: Keeper, observer: Observer, stop: StopRequest
) -> bool:
    """The steps of an epoch that are still to do; whether it came to its end."""
    started = time.monotonic() - at.seconds
    if not at.done:
        program.start_epoch()
    steps = program.steps_per_epoch
    while at.done < steps:
        for name, value in program.step(at.done).items():
            # Checkpoints from before terms were counted had one of each in every step.
            met = at.terms.get(name, at.done if name in at.totals else 0)
            at.terms[name] = met + 1
            at.totals[name] = at.totals[name] + value if name in at.totals else value
        at.done += 1
        observer.step(at.epoch, at.done, steps)
        if at.done < steps and (stop.asked or keeper.due()):
            at.seconds = time.monotonic() - started
            if stop.asked:
                return False
            _means(at)
            keeper.checkpoint(at)
    at.totals = {name: total.cpu() for name, total in at.totals.items()}  # waits for the steps
    at.seconds = time.monotonic() - started
    return True


def _means(at: Progress) -> dict[str, float]:
    """Of the loss terms over those steps of the epoch so far that had them.

    Raises:
        NonFiniteLoss: when one is not finite.
    """
    losses = {name: float(total) / at.terms.get(name, at.done) for name, total in at.totals.items()}
    for name, mean in losses.items():
        if not math.isfinite(mean):
            raise NonFiniteLoss(
                f"epoch {at.epoch}: the term {name!r} became {mean}; lower the learning rate, or "
                "look at the data"
            )
    return losses
