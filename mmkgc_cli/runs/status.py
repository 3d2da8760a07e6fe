"""The state of a run directory, read without torch; damage is reported, never raised."""

from __future__ import annotations

import math
import os
import stat
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import Path
from typing import Any, TypeVar

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.runs.directory import OWN_FILES, RunDirectory
from mmkgc_cli.runs.toml_file import read_toml
from mmkgc_cli.state.atomic import abandoned, read_json
from mmkgc_cli.state.metadata import CHECKSUM, read_metadata, read_state
from mmkgc_cli.state.trace import read_trace

_T = TypeVar("_T")
# How the trace names a stop by a signal.
_SIGNAL = "signal "
_RESTORE = "restore the file, or train again with --overwrite"


class State(StrEnum):
    """The state of a run."""

    running = "running"
    finished = "finished"
    interrupted = "interrupted"
    failed = "failed"
    damaged = "damaged"


@dataclass(frozen=True)
class File:
    """A file of a run, as it was when the run was inspected."""

    path: Path
    bytes: int
    modified: float  # seconds since 1970


@dataclass(frozen=True)
class Checkpoint(File):
    """A checkpoint and, where it is readable, its progress."""

    step: int
    epoch: int | None  # the current epoch
    done: int | None  # steps of the current epoch
    finished: bool = False
    problem: str = ""


@dataclass
class Run:
    """Everything that is known of a run; what is unreadable is None and a line in `problems`."""

    path: Path
    name: str
    state: State = State.interrupted
    scorer: str | None = None
    completes: str | None = None  # the modality of a completion, which has no scorer
    strategy: str | None = None
    graph: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0  # completed
    epochs_asked: int | None = None
    best_epoch: int | None = None
    valid_mrr: float | None = None
    test_mrr: float | None = None
    stopped: str | None = None  # the reason, as in the trace
    seconds: float | None = None
    triples_per_second: float | None = None
    weights_epoch: int | None = None
    has_weights: bool = False
    results: dict[str, Any] | None = None
    outdated_results: bool = False  # the results are of earlier weights
    checkpoints: list[Checkpoint] = field(default_factory=list)
    files: list[File] = field(default_factory=list)  # including checkpoints and leftovers
    leftovers: list[File] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """The size of all its files."""
        return sum(file.bytes for file in self.files)

    @property
    def touched(self) -> float:
        """When one of its files was last written, in seconds since 1970."""
        return max((file.modified for file in self.files), default=0.0)

    @property
    def why(self) -> str:
        """One line on what is wrong or unfinished; empty for a finished run."""
        if self.state is State.damaged:
            return self.problems[0]
        if self.state is State.failed:
            return self.stopped or "an error without a message"
        if self.state is State.interrupted:
            total = f" of {self.epochs_asked:,}" if self.epochs_asked else ""
            return f"after epoch {self.epochs:,}{total}"
        return ""


def is_run(path: Path) -> bool:
    """Whether a folder is a run directory, even a damaged one.

    A ``config.toml`` or ``checkpoints`` of another program does not count.
    """
    run = RunDirectory(path)
    if os.path.lexists(run.lock):
        return True
    if not (os.path.lexists(run.config) or os.path.lexists(run.trace)):
        return False
    others = (run.environment, run.trace, run.weights, run.results)
    return any(map(os.path.lexists, others)) or _is_config(run.config)


def inspect(path: Path, name: str | None = None, ask_lock: bool = True) -> Run:
    """Reads the state of a run; damage is recorded in `problems` and never raised.

    Args:
        path: the run directory.
        name: its name; default: the path.
        ask_lock: whether to check the lock; False for a caller that holds it.
    """
    directory = RunDirectory(path)
    run = Run(path, str(path) if name is None else name)
    # Checked first, so that a training that ends meanwhile does not appear interrupted.
    running = ask_lock and directory.is_locked()
    _take_files(run, directory)
    _take_config(run, directory)
    last = _take_trace(run, directory)
    sha256 = _take_weights(run, directory)
    _take_results(run, directory, sha256)
    if os.path.lexists(directory.environment):
        run.environment = _attempt(run, lambda: _object(directory.environment)) or {}
    _decide(run, directory, last, running)
    return run


def _take_files(run: Run, directory: RunDirectory) -> None:
    # Symbolic links do not count as files of the run.
    with_ranks = {run.path / name for name in OWN_FILES} | {directory.lock}
    run.files = list(filter(None, map(_file, sorted(with_ranks))))
    run.leftovers = list(_leftovers(directory))
    run.files += run.leftovers
    if directory.checkpoints.is_symlink() or not directory.checkpoints.is_dir():
        return
    for path in sorted(directory.checkpoints.glob("[0-9]*.safetensors")):
        if file := _file(path):
            run.checkpoints.append(_checkpoint(file))
    run.files += run.checkpoints


def _leftovers(directory: RunDirectory) -> Iterator[File]:
    """Temporary files that dead processes left for files of the run."""
    for path, name in abandoned(directory.path):
        if name in OWN_FILES and (file := _file(path)):
            yield file
    if directory.checkpoints.is_symlink():
        return
    for path, name in abandoned(directory.checkpoints):
        if name[:1].isdigit() and name.endswith(".safetensors") and (file := _file(path)):
            yield file


def _file(path: Path) -> File | None:
    """A regular file; None for anything else, or when it was just removed."""
    try:
        status = path.lstat()
    except OSError:
        return None
    return File(path, status.st_size, status.st_mtime) if stat.S_ISREG(status.st_mode) else None


def _checkpoint(file: File) -> Checkpoint:
    step = file.path.name.removesuffix(".safetensors")
    values = (file.path, file.bytes, file.modified, int(step) if step.isdecimal() else 0)
    try:
        state = read_state(file.path)
    except DataError as error:
        return Checkpoint(*values, None, None, problem=str(error))
    progress = _mapping(_mapping(state).get("progress"))
    epoch, done = _count(progress.get("epoch")), _count(progress.get("done"))
    return Checkpoint(*values, epoch, done, bool(progress.get("stopped")))


def _take_config(run: Run, directory: RunDirectory) -> None:
    if not os.path.lexists(directory.config):
        return  # `_decide` reports it
    run.config = _attempt(run, lambda: _toml(directory.config)) or {}
    run.scorer = _string(run.config.get("scorer"))
    run.strategy = _string(run.config.get("strategy"))
    run.completes = _string(_mapping(run.config.get("completion")).get("modality"))
    run.graph = _string(_mapping(run.config.get("graph")).get("name")) or None
    learning = "training" if run.completes is None else run.strategy or ""
    run.epochs_asked = _count(_mapping(run.config.get(learning)).get("epochs"))
    if run.config and ((run.scorer or run.strategy) is None or run.epochs_asked is None):
        run.problems.append(f"{directory.config}: not the configuration of a run")


def _take_trace(run: Run, directory: RunDirectory) -> str | None:
    """Reads the trace; returns the name of its last event, None without events."""
    if not os.path.lexists(directory.trace):
        newest = run.checkpoints[-1].epoch if run.checkpoints else None
        run.epochs = (newest or 1) - 1
        return None
    events = _attempt(run, lambda: read_trace(_regular(directory.trace))) or []
    rates: list[float] = []
    last: dict[str, Any] = {}
    for number, event in enumerate(events, start=1):
        if not isinstance(event, dict) or not isinstance(event.get("event"), str):
            run.problems.append(f"{directory.trace}:{number}: not an event")
            return None
        last = event
        if event["event"] == "start":
            run.scorer = run.scorer or _string(event.get("scorer"))
            run.graph = run.graph or _string(event.get("graph"))
        if event["event"] != "epoch":
            continue
        run.epochs = _count(event.get("epoch")) or run.epochs
        mrr = _number(_mapping(event.get("valid")).get("mrr"))
        if event.get("improved") is True and mrr is not None:
            run.best_epoch, run.valid_mrr = run.epochs, mrr
        if (rate := _number(event.get("triples_per_second"))) is not None:
            rates.append(rate)
    run.seconds = _number(last.get("seconds"))
    # The median: the first epochs warm up, and other processes may use the machine.
    run.triples_per_second = sorted(rates)[len(rates) // 2] if rates else None
    name = _string(last.get("event"))
    if name == "end":
        run.stopped = _string(last.get("stopped"))
        epochs = _count(last.get("epochs"))
        run.epochs = run.epochs if epochs is None else epochs
        mrr = _number(last.get("valid_mrr"))
        run.valid_mrr = run.valid_mrr if mrr is None else mrr
    elif name == "error":
        run.stopped = _string(last.get("message"))
    return name


def _take_weights(run: Run, directory: RunDirectory) -> str | None:
    """Reads the metadata of the weights; returns their checksum."""
    run.has_weights = os.path.lexists(directory.weights)
    if not run.has_weights:
        return None
    metadata = _attempt(run, lambda: read_metadata(directory.weights)) or {}
    epoch = metadata.get("epoch")
    run.weights_epoch = int(epoch) if isinstance(epoch, str) and epoch.isdecimal() else None
    return _string(metadata.get(CHECKSUM))


def _take_results(run: Run, directory: RunDirectory, sha256: str | None) -> None:
    if not os.path.lexists(directory.results):
        return
    results = run.results = _attempt(run, lambda: _object(directory.results))
    if results is None:
        return
    evaluated = _mapping(results.get("model")).get(CHECKSUM)
    run.outdated_results = sha256 is not None and evaluated != sha256
    mrr = _realistic(results, "test").get("mrr")
    run.test_mrr = None if run.outdated_results else _number(mrr)
    if run.valid_mrr is None and not run.outdated_results:
        run.valid_mrr = _number(_realistic(results, "valid").get("mrr"))


def _realistic(results: dict[str, Any], split: str) -> dict[str, Any]:
    metrics = _mapping(results.get("metrics"))
    for key in (split, "both", "realistic"):
        metrics = _mapping(metrics.get(key))
    return metrics


def _decide(run: Run, directory: RunDirectory, last: str | None, running: bool) -> None:
    ended = last == "end" and not (run.stopped or "").startswith(_SIGNAL)
    if not os.path.lexists(directory.config) and (last or run.has_weights or run.checkpoints):
        run.problems.insert(0, f"{directory.config}: no such file")
    if ended and not run.has_weights:
        run.problems.append(f"{directory.weights}: no such file, though the training has ended")
    bad = [checkpoint.problem for checkpoint in run.checkpoints if checkpoint.problem]
    if bad and not ended and len(bad) == len(run.checkpoints):
        run.problems.append(bad[-1])  # no checkpoint to resume from
    if running:
        run.state = State.running
    elif run.problems:
        run.state = State.damaged
    elif last == "error":
        run.state = State.failed
    # Weights alone, copied without their trace, also count as finished.
    elif ended or (last is None and run.has_weights and not run.checkpoints):
        run.state = State.finished


def _attempt(run: Run, read: Callable[[], _T]) -> _T | None:
    """The result of `read`; an error becomes a line in `problems`."""
    try:
        return read()
    except (MmkgcError, OSError, ValueError, RecursionError) as error:
        run.problems.append(" ".join(str(error).split()))
        return None


def _regular(path: Path) -> Path:
    """The path of a regular file: reading a pipe would wait for a writer.

    Raises:
        DataError: when it is missing or not a regular file.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: {'not a file' if path.exists() else 'no such file'}", fix=_RESTORE
        )
    return path


def _object(path: Path) -> dict[str, Any]:
    value = read_json(_regular(path))
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a JSON object", fix=_RESTORE)
    return value


def _toml(path: Path) -> dict[str, Any]:
    return read_toml(_regular(path)).values


def _is_config(config: Path) -> bool:
    try:
        values = _toml(config)
    except (MmkgcError, OSError, ValueError, RecursionError):
        return False
    return any(_string(values.get(name)) is not None for name in ("scorer", "strategy"))


def _mapping(value: Any) -> dict[str, Any]:
    return value if isinstance(value, dict) else {}


def _string(value: Any) -> str | None:
    return value if isinstance(value, str) else None


def _count(value: Any) -> int | None:
    return value if type(value) is int and value >= 0 else None


def _number(value: Any) -> float | None:
    """A finite number; files that mmkgc did not write may contain others."""
    if type(value) not in (int, float) or not math.isfinite(value):
        return None
    return float(value)
