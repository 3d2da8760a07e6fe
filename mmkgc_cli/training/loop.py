"""The training loop: epochs, validation, early stopping and a stop on signals."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from mmkgc_cli.errors import MmkgcError

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Tensor

    from mmkgc_cli.kg.graph import Graph
    from mmkgc_cli.state.signals import StopRequest

FINISHED = "all epochs done"
# Metrics of a validation; they contain "mrr" if the schedule selects weights.
Validate = Callable[[], dict[str, float]]


class StepProgram(Protocol):
    """What the loop runs: a state, and a step over numbered batches."""

    @property
    def steps_per_epoch(self) -> int:
        """Steps in one epoch."""

    def start_epoch(self) -> None:
        """Called once before the steps of an epoch."""

    def step(self, index: int) -> dict[str, Tensor]:
        """Runs step `index` and returns scalars to report, one of them named ``loss``.

        They must be finite; the loop reports their means over the epoch. Must not wait for the
        device.
        """

    def state_dict(self) -> dict[str, Any]:
        """Everything that later steps depend on: nested dicts, lists, plain values, tensors."""

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restores a state of `state_dict`, also one from the middle of an epoch."""


@dataclass(frozen=True)
class Schedule:
    """Number of epochs, validation interval and patience (in validations; 0 disables stopping).

    With `selects` False, validations are reported but neither select weights nor stop training.
    """

    epochs: int
    eval_every: int
    patience: int
    selects: bool = True


@dataclass(frozen=True)
class EpochReport:
    """Losses, speed and validation of one epoch (counted from 1)."""

    epoch: int
    losses: dict[str, float]
    epoch_seconds: float
    triples_per_second: float
    valid: dict[str, float] | None = None
    improved: bool = False


@dataclass
class Outcome:
    """How training ended; `interrupted` is True after a signal."""

    epochs: int = 0
    best_epoch: int = 0
    best_mrr: float = -math.inf
    stopped: str = FINISHED
    interrupted: bool = False


@dataclass
class Progress:
    """The progress of a training. Checkpoints hold it under the names of these fields."""

    epoch: int = 1  # the current epoch, or the next one
    done: int = 0  # steps done in it
    totals: dict[str, Tensor] = field(default_factory=dict)  # sums of the loss terms over them
    terms: dict[str, int] = field(default_factory=dict)  # number of summands of each total
    seconds: float = 0.0  # duration of these steps
    best_epoch: int = 0
    best_mrr: float = -math.inf
    stale: int = 0  # validations since the best epoch
    stopped: str = ""  # why training has ended; empty before its end

    def state_dict(self) -> dict[str, Any]:
        """The fields by name."""
        return dict(vars(self))

    def mean_losses(self) -> dict[str, float]:
        """Means of the loss terms, each over the steps of the epoch that returned it.

        Raises:
            NonFiniteLoss: when a mean is not finite.
        """
        means = {n: float(total) / self.terms.get(n, self.done) for n, total in self.totals.items()}
        for name, mean in means.items():
            if not math.isfinite(mean):
                raise NonFiniteLoss(
                    f"epoch {self.epoch}: the loss term {name!r} is {mean}",
                    fix=LOWER_THE_LEARNING_RATE,
                )
        return means


@dataclass(frozen=True, kw_only=True)
class RunInfo:
    """What a run trains, for callbacks that describe it."""

    folder: Path  # of the run
    graph: Graph
    name: str  # of the scorer or the completion strategy
    modality: str = ""  # that the strategy completes
    parameters: int
    device: str
    epochs: int
    first_epoch: int = 1  # above 1 for a resumed run
    settings: Mapping[str, Any] = field(default_factory=dict)  # without paths of this machine


class Callback:
    """Hooks of a training, called by the loop and by `runs.driver.drive`.

    Each hook does nothing by default. Callbacks are called in order by `start`, `step`, `best`,
    `epoch` and `checkpoint`, in reverse order by `end` and `close`.
    """

    def start(self, info: RunInfo) -> None:
        """Called once before the first step."""

    def step(self, epoch: int, done: int, total: int) -> None:
        """Called after step `done` of the `total` steps of an epoch."""

    def best(self, epoch: int, metrics: dict[str, float]) -> None:
        """Called when a validation is the best so far, before `epoch`."""

    def epoch(self, report: EpochReport) -> None:
        """Called after each epoch and its validation."""

    def checkpoint(self, progress: Progress, *, required: bool) -> None:
        """Called when training can be resumed from here, between steps and after epochs.

        `required` is True when training ends or is interrupted here.
        """

    def event(self, row: Mapping[str, Any]) -> None:
        """Called after `row` was written to the trace."""

    def error(self, message: str) -> None:
        """Called when training fails with an error that has a message for the user."""

    def end(self, outcome: Outcome) -> None:
        """Called after the last step, also when a signal interrupted training."""

    def close(self, exit_code: int) -> None:
        """Called last, also after errors and when `start` was never called."""


class NonFiniteLoss(MmkgcError):
    """A loss or a weight became NaN or infinite; earlier weights and checkpoints are kept."""


LOWER_THE_LEARNING_RATE = "lower the learning rate (--lr, or --set maco.lr=LR for maco)"


def train(
    program: StepProgram,
    schedule: Schedule,
    callbacks: Sequence[Callback],
    stop: StopRequest,
    *,
    rows: int,
    validate: Validate | None = None,
    progress: Progress | None = None,
) -> Outcome:
    """Runs the epochs of a program, with validation and early stopping.

    A signal ends training after the current step, with a checkpoint and without a validation, so
    that a resumed training is identical to an uninterrupted one.

    Args:
        program: what a step does.
        schedule: epochs, validation interval and patience.
        callbacks: called in order.
        stop: checked after each step.
        rows: triples (or entities) in an epoch, for the throughput.
        validate: returns validation metrics; None disables validation.
        progress: the progress in the checkpoint that `program` was loaded from.

    Raises:
        NonFiniteLoss: naming the loss term and the epoch.
    """
    progress = progress or Progress()
    while progress.epoch <= schedule.epochs and not progress.stopped and not stop.asked:
        if not _run_epoch(program, progress, callbacks, stop):
            break
        epoch, losses = progress.epoch, progress.mean_losses()
        due = epoch == schedule.epochs or epoch % schedule.eval_every == 0
        valid = validate() if due and validate else None
        improved = False
        if valid is not None and schedule.selects:
            improved = valid["mrr"] > progress.best_mrr
            progress.stale += 1
        if valid is not None and improved:
            progress.best_epoch, progress.best_mrr, progress.stale = epoch, valid["mrr"], 0
            for callback in callbacks:
                callback.best(epoch, valid)
        seconds = progress.seconds
        report = EpochReport(epoch, losses, seconds, rows / seconds, valid, improved)
        for callback in callbacks:
            callback.epoch(report)
        progress.epoch, progress.done, progress.seconds = epoch + 1, 0, 0.0
        progress.totals, progress.terms = {}, {}
        if epoch == schedule.epochs:
            progress.stopped = FINISHED
        elif schedule.patience and progress.stale >= schedule.patience:
            progress.stopped = f"no better valid MRR in {progress.stale} validations"
        for callback in callbacks:
            callback.checkpoint(progress, required=bool(progress.stopped))
    if stop.asked and not progress.stopped:
        for callback in callbacks:
            callback.checkpoint(progress, required=True)
    stopped = progress.stopped or f"signal {stop.signal_number}"
    return Outcome(progress.epoch - 1, progress.best_epoch, progress.best_mrr, stopped, stop.asked)


def _run_epoch(
    program: StepProgram, progress: Progress, callbacks: Sequence[Callback], stop: StopRequest
) -> bool:
    """Runs the remaining steps of an epoch; False when a signal ended it early."""
    started = time.monotonic() - progress.seconds
    if not progress.done:
        program.start_epoch()
    steps = program.steps_per_epoch
    while progress.done < steps:
        for name, value in program.step(progress.done).items():
            # Checkpoints of early versions have no counts: each term was part of every step.
            count = progress.terms.get(name, progress.done if name in progress.totals else 0)
            progress.terms[name] = count + 1
            total = progress.totals.get(name)
            progress.totals[name] = value if total is None else total + value
        progress.done += 1
        for callback in callbacks:
            callback.step(progress.epoch, progress.done, steps)
        if progress.done < steps:
            progress.seconds = time.monotonic() - started
            if stop.asked:
                return False
            for callback in callbacks:
                callback.checkpoint(progress, required=False)
    # Waits for the steps, so that `seconds` includes them.
    progress.totals = {name: total.cpu() for name, total in progress.totals.items()}
    progress.seconds = time.monotonic() - started
    return True
