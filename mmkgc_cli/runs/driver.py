"""The driver of trainings and completions: signals, trace, checkpoints and the end of a run."""

from __future__ import annotations

import contextlib
import shlex
import time
from collections.abc import Mapping, Sequence
from typing import Any, ClassVar, Generic, Protocol, TypeVar

import torch
from torch import Tensor

from mmkgc_cli.errors import DataError
from mmkgc_cli.plugins import convert_error
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.state.checkpoints import Checkpoints
from mmkgc_cli.state.memory import frozen_gc
from mmkgc_cli.state.signals import StopRequest
from mmkgc_cli.state.trace import Trace
from mmkgc_cli.training.loop import (
    FINISHED,
    LOWER_THE_LEARNING_RATE,
    Callback,
    NonFiniteLoss,
    Outcome,
    Progress,
    RunInfo,
    Schedule,
    StepProgram,
    Validate,
    train,
)
from mmkgc_cli.training.settings import CheckpointsSettings


class Trainable(StepProgram, Protocol):
    """A step program with weights that checkpoints test for NaN and infinity."""

    def weights(self) -> dict[str, Tensor]:
        """The parameters and counters, by name."""


_P = TypeVar("_P", bound=Trainable)


class TraceCallback(Callback):
    """Opens the trace of a run, writes ``resume`` and ``error``, and passes events on."""

    def __init__(
        self, run: RunDirectory, state: Mapping[str, Any] | None, listeners: Sequence[Callback]
    ) -> None:
        """Continues the trace after the checkpoint `state`; None starts a new trace."""
        self.resumed = state is not None
        start: tuple[int, float] = (0, 0.0) if state is None else state["trace"]
        self._position, self._seconds = start
        self._path = run.trace
        self._listeners = listeners
        self._trace: Trace | None = None

    def write(self, event: str, **fields: Any) -> None:
        """Appends one event."""
        assert self._trace is not None, "the trace is not open"
        self._trace.write(event, **fields)

    def sync(self) -> tuple[int, float]:
        """Flushes the trace to the disk; returns its length in bytes and the seconds so far."""
        assert self._trace is not None, "the trace is not open"
        return self._trace.sync()

    def start(self, info: RunInfo) -> None:
        """Opens the trace, and writes ``resume`` for a resumed run."""
        self._trace = Trace(self._path, self._position, self._seconds, self._notify)
        if self.resumed:
            self.write("resume", threads=torch.get_num_threads(), device=info.device)

    def _notify(self, row: Mapping[str, Any]) -> None:
        for listener in self._listeners:
            listener.event(row)

    def error(self, message: str) -> None:
        """Writes ``error``, unless the storage fails too."""
        with contextlib.suppress(DataError):
            self.write("error", message=message)

    def close(self, exit_code: int) -> None:
        """Closes the file."""
        if self._trace is not None:
            with self._trace:  # flushes the last events
                pass


class Job(Callback, Generic[_P]):
    """One run: what it trains, validates, saves and writes to the trace."""

    resume_command: ClassVar[str]  # without the run directory

    run: RunDirectory
    info: RunInfo
    program: _P | None  # None when there is nothing to train, which only validates
    schedule: Schedule
    rows: int  # triples or entities in an epoch, for the throughput
    device: torch.device
    checkpoints: CheckpointsSettings
    validate: Validate | None = None
    valid: dict[str, float]  # metrics of the best weights
    trace: TraceCallback  # set by the driver

    def steps(self) -> StepProgram:
        """The program that the loop runs, called after `program` was restored."""
        assert self.program is not None
        return self.program

    def weights_note(self, outcome: Outcome) -> str:
        """A sentence on the weights in the run directory; empty when there are none yet."""
        return ""


class Checkpointer(Callback):
    """Writes checkpoints, from which a training resumes bit for bit."""

    def __init__(self, job: Job[Any], trace: TraceCallback) -> None:
        self._job = job
        self._trace = trace
        self._checkpoints = Checkpoints(job.run.checkpoints, job.checkpoints.keep)
        self._last = time.monotonic()

    def checkpoint(self, progress: Progress, *, required: bool) -> None:
        """Writes a checkpoint if it is `required` or the last one is old enough.

        Raises:
            NonFiniteLoss: when a loss or a weight is not finite; nothing is written then.
        """
        job = self._job
        if not required and time.monotonic() - self._last < job.checkpoints.seconds:
            return
        program = job.program
        assert program is not None
        progress.mean_losses()
        for name, weights in program.weights().items():
            if weights.is_floating_point() and not bool(weights.isfinite().all()):
                raise NonFiniteLoss(
                    f"epoch {progress.epoch}: the weights {name!r} are not finite",
                    fix=LOWER_THE_LEARNING_RATE,
                )
        position, seconds = self._trace.sync()  # the checkpoint refers to the trace up to here
        state = {
            "progress": progress.state_dict(),
            "program": program.state_dict(),
            "valid": job.valid,
            "trace": [position, seconds],
            "random": _random_states(job.device),
            "threads": torch.get_num_threads(),
            "device": job.device.type,
        }
        step = (progress.epoch - 1) * program.steps_per_epoch + progress.done
        self._checkpoints.save(step, state)
        self._last = time.monotonic()

    def restore(self, state: Mapping[str, Any]) -> Progress:
        """Loads a checkpoint into the program and the random streams; returns its progress."""
        job = self._job
        assert job.program is not None
        job.program.load_state_dict(state["program"])
        job.valid = state["valid"]
        progress = Progress(**state["progress"])
        progress.totals = {name: total.to(job.device) for name, total in progress.totals.items()}
        torch.set_rng_state(state["random"]["cpu"])
        if "cuda" in state["random"] and job.device.type == "cuda":
            torch.cuda.set_rng_state(state["random"]["cuda"], job.device)
        return progress


def _random_states(device: torch.device) -> dict[str, Tensor]:
    """States of torch's global generators, which layers such as dropout use."""
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    return states


def drive(job: Job[Any], callbacks: Sequence[Callback], state: Mapping[str, Any] | None) -> Outcome:
    """Trains in a run directory: trace, checkpoints, signals, errors and the end of the run.

    Args:
        job: what to train.
        callbacks: the display and loggers.
        state: the checkpoint to resume from; None trains from the start.

    Raises:
        MmkgcError: from the program, the validation or the storage; the trace records it.
        Interrupted: after a signal, with a checkpoint to resume from.
    """
    trace = job.trace = TraceCallback(job.run, state, callbacks)
    checkpointer = Checkpointer(job, trace)
    callbacks = [*callbacks, trace, job, checkpointer]
    exit_code = 0
    try:
        for callback in callbacks:
            callback.start(job.info)
        with StopRequest() as stop, frozen_gc():
            try:
                outcome = _train(job, callbacks, checkpointer, stop, state)
            except Exception as error:
                if (known := convert_error(error)) is not None:
                    for callback in callbacks:
                        callback.error(str(known))
                raise
            for callback in reversed(callbacks):
                callback.end(outcome)
            epoch = min(outcome.epochs + 1, job.schedule.epochs)
            stop.raise_if_asked(
                f"Interrupted in epoch {epoch}",
                fix=f"checkpoint saved. {job.weights_note(outcome)}"
                f"Resume with: {job.resume_command} {shlex.quote(str(job.run.path))}",
            )
    except BaseException as error:
        exit_code = getattr(error, "exit_code", 1)
        raise
    finally:
        for callback in reversed(callbacks):
            callback.close(exit_code)
    return outcome


def _train(
    job: Job[Any],
    callbacks: Sequence[Callback],
    checkpointer: Checkpointer,
    stop: StopRequest,
    state: Mapping[str, Any] | None,
) -> Outcome:
    if job.program is None:
        assert job.validate is not None
        metrics = job.validate()
        job.best(0, metrics)
        return Outcome(0, 0, metrics["mrr"], "nothing to train", stop.asked)
    progress = checkpointer.restore(state) if state is not None else None
    # A finished run may be resumed with more epochs.
    if progress and progress.epoch <= job.schedule.epochs and progress.stopped == FINISHED:
        progress.stopped = ""
    return train(
        job.steps(), job.schedule, callbacks, stop,
        rows=job.rows, validate=job.validate, progress=progress,
    )  # fmt: skip
