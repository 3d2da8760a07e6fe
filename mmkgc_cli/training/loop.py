"""The loop: epochs of a step program, validation, early stopping, stopping on signals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Protocol

from torch import Tensor

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.state.signals import StopRequest


class StepProgram(Protocol):
    """What the loop drives: a state and a step over numbered batches."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch."""

    def start_epoch(self) -> None:
        """Called once before the steps of an epoch."""

    def step(self, index: int) -> dict[str, Tensor]:
        """Does step `index` and returns loss terms; must not wait for the device."""


class Observer(Protocol):
    """What the loop reports to: a progress display, a trace."""

    def step(self, epoch: int, done: int, total: int) -> None:
        """Called after each step."""

    def epoch(self, report: EpochReport) -> None:
        """Called after each epoch, with validation where there was one."""


@dataclass(frozen=True)
class Schedule:
    """How long to train and when to validate; `patience` 0 never stops early."""

    epochs: int
    eval_every: int
    patience: int


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
    stopped: str = "all epochs done"
    stale: int = field(default=0, repr=False)


class NonFiniteLoss(MmkgcError):
    """The loss became NaN or infinite; the best weights so far are kept."""


def train(
    program: StepProgram,
    schedule: Schedule,
    n_triples: int,
    validate: Callable[[], dict[str, float]],
    keep_best: Callable[[int, dict[str, float]], None],
    observer: Observer,
    stop: StopRequest,
) -> Outcome:
    """Runs the program and keeps the weights that rank valid best.

    Args:
        program: what a step does.
        schedule: epochs, validation interval and patience (in validations).
        n_triples: triples in an epoch, for the throughput.
        validate: gives valid metrics with at least ``mrr``.
        keep_best: saves the weights; called with epoch and metrics on every improvement.
        observer: is told of steps and epochs.
        stop: looked at after each step; the loop then validates what it has and returns.

    Raises:
        NonFiniteLoss: naming the term and the epoch.
    """
    outcome = Outcome()
    for epoch in range(1, schedule.epochs + 1):
        start = time.monotonic()
        program.start_epoch()
        total: dict[str, Tensor] = {}
        steps = program.steps_per_epoch
        done = 0
        for index in range(steps):
            for name, value in program.step(index).items():
                total[name] = total[name] + value if name in total else value
            done += 1
            observer.step(epoch, done, steps)
            if stop.asked:
                break
        losses = {name: float(term) / done for name, term in total.items()}
        seconds = time.monotonic() - start
        for name, mean in losses.items():
            if not math.isfinite(mean):
                raise NonFiniteLoss(
                    f"epoch {epoch}: the term {name!r} became {mean}; lower training.lr, or look "
                    "at the data"
                )
        outcome.epochs = epoch
        last = epoch == schedule.epochs or stop.asked
        valid = validate() if last or epoch % schedule.eval_every == 0 else None
        improved = valid is not None and valid["mrr"] > outcome.best_mrr
        if valid is not None and improved:
            outcome.best_epoch, outcome.best_mrr, outcome.stale = epoch, valid["mrr"], 0
            keep_best(epoch, valid)
        elif valid is not None:
            outcome.stale += 1
        rate = n_triples * done / steps / seconds
        observer.epoch(EpochReport(epoch, losses, seconds, rate, valid, improved))
        if stop.asked:
            outcome.stopped = f"signal {stop.signal_number}"
            break
        if schedule.patience and outcome.stale >= schedule.patience:
            outcome.stopped = f"no better valid MRR in {outcome.stale} validations"
            break
    return outcome
