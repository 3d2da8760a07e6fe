"""What a run directory holds, found out without torch and without an error for what is damaged."""

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
# What a stop by a signal is called in the trace.
_SIGNAL = "signal "


class State(StrEnum):
    """What became of a run."""

    running = "running"
    finished = "finished"
    interrupted = "interrupted"
    failed = "failed"
    damaged = "damaged"


@dataclass(frozen=True)
class File:
    """A file of a run, as it was when the run was looked at."""

    path: Path
    bytes: int
    modified: float  # seconds since 1970


@dataclass(frozen=True)
class Checkpoint(File):
    """A checkpoint and, where it can be read, how far training was."""

    step: int
    epoch: int | None  # the one it is in
    done: int | None  # steps of that
    finished: bool = False
    problem: str = ""


@dataclass
class Run:
    """All that is known of a run. What could not be read is None, and `problems` says why."""

    path: Path
    name: str
    state: State = State.interrupted
    scorer: str | None = None
    completes: str | None = None  # a modality, by a strategy; then it has no scorer
    strategy: str | None = None
    graph: str | None = None
    config: dict[str, Any] = field(default_factory=dict)
    environment: dict[str, Any] = field(default_factory=dict)
    epochs: int = 0  # done
    epochs_asked: int | None = None
    best_epoch: int | None = None
    valid_mrr: float | None = None
    test_mrr: float | None = None
    stopped: str | None = None  # in the words of the trace
    seconds: float | None = None
    triples_per_second: float | None = None
    weights_epoch: int | None = None
    has_weights: bool = False
    results: dict[str, Any] | None = None
    outdated_results: bool = False  # they are of weights that are no longer there
    checkpoints: list[Checkpoint] = field(default_factory=list)
    files: list[File] = field(default_factory=list)  # its own, with checkpoints and leftovers
    leftovers: list[File] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)

    @property
    def bytes(self) -> int:
        """Of all files of its own."""
        return sum(file.bytes for file in self.files)

    @property
    def touched(self) -> float:
        """When a file of it was last written, in seconds since 1970."""
        return max((file.modified for file in self.files), default=0.0)

    @property
    def why(self) -> str:
        """One line on what is wrong or unfinished; empty for a run that is fine."""
        if self.state is State.damaged:
            return self.problems[0]
        if self.state is State.failed:
            return self.stopped or "an error without a message"
        if self.state is State.interrupted:
            of = f" of {self.epochs_asked:,}" if self.epochs_asked else ""
            return f"after epoch {self.epochs:,}{of}"
        return ""


def is_run(path: Path) -> bool:
    """Whether a folder holds a run, whole or damaged.

    A ``config.toml`` or ``checkpoints`` of another program makes none.
    """
    run = RunDirectory(path)
    if os.path.lexists(run.lock):
        return True
    if not (os.path.lexists(run.config) or os.path.lexists(run.trace)):
        return False
    others = (run.environment, run.trace, run.weights, run.results)
    return any(map(os.path.lexists, others)) or _is_config(run.config)


def inspect(path: Path, name: str | None = None, ask_lock: bool = True) -> Run:
    """Looks at a run; nothing that is wrong with it is an error.

    Args:
        path: the run directory.
        name: what to call it; the path when left out.
        ask_lock: off for who holds the lock.
    """
    directory = RunDirectory(path)
    run = Run(path, str(path) if name is None else name)
    # Asked first: a training that ends meanwhile is then not taken for one that was interrupted.
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
    # Symbolic links are no files of the run, whatever they lead to.
    with_ranks = {run.path / name for name in OWN_FILES} | {directory.lock}
    run.files = list(filter(None, map(_file, sorted(with_ranks))))
    run.leftovers = list(_leftovers(directory))
    run.files += run.leftovers
    if directory.checkpoints.is_symlink() or not directory.checkpoints.is_dir():
        return
    for path in sorted(directory.checkpoints.glob("[0-9]*.safetensors")):
        if found := _file(path):
            run.checkpoints.append(_checkpoint(found))
    run.files += run.checkpoints


def _leftovers(directory: RunDirectory) -> Iterator[File]:
    """Temporary files of dead processes, made for a file of the run."""
    for path, name in abandoned(directory.path):
        if name in OWN_FILES and (found := _file(path)):
            yield found
    if directory.checkpoints.is_symlink():
        return
    for path, name in abandoned(directory.checkpoints):
        if name[:1].isdigit() and name.endswith(".safetensors") and (found := _file(path)):
            yield found


def _file(path: Path) -> File | None:
    """A regular file; None for anything else, or when it has just gone."""
    try:
        about = path.lstat()
    except OSError:
        return None
    return File(path, about.st_size, about.st_mtime) if stat.S_ISREG(about.st_mode) else None


def _checkpoint(file: File) -> Checkpoint:
    step = file.path.name.removesuffix(".safetensors")
    about = (file.path, file.bytes, file.modified, int(step) if step.isdecimal() else 0)
    try:
        state = read_state(file.path)
    except DataError as error:
        return Checkpoint(*about, None, None, problem=str(error))
    progress = _mapping(_mapping(state).get("progress"))
    epoch, done = _count(progress.get("epoch")), _count(progress.get("done"))
    return Checkpoint(*about, epoch, done, bool(progress.get("stopped")))


def _take_config(run: Run, directory: RunDirectory) -> None:
    if not os.path.lexists(directory.config):
        return  # `_decide` says whether that is wrong
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
    """Takes what the trace says; the name of its last event, None where there is none."""
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
    # The middle one: the first epochs warm up, and a machine is busy at times.
    run.triples_per_second = sorted(rates)[len(rates) // 2] if rates else None
    kind = _string(last.get("event"))
    if kind == "end":
        run.stopped = _string(last.get("stopped"))
        epochs = _count(last.get("epochs"))
        run.epochs = run.epochs if epochs is None else epochs
        mrr = _number(last.get("valid_mrr"))
        run.valid_mrr = run.valid_mrr if mrr is None else mrr
    elif kind == "error":
        run.stopped = _string(last.get("message"))
    return kind


def _take_weights(run: Run, directory: RunDirectory) -> str | None:
    """Looks at the weights; their checksum."""
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
    of = _mapping(results.get("model")).get(CHECKSUM)
    run.outdated_results = sha256 is not None and of != sha256
    mrr = _realistic(results, "test").get("mrr")
    run.test_mrr = None if run.outdated_results else _number(mrr)
    if run.valid_mrr is None and not run.outdated_results:
        run.valid_mrr = _number(_realistic(results, "valid").get("mrr"))


def _realistic(results: dict[str, Any], split: str) -> dict[str, Any]:
    found = _mapping(results.get("metrics"))
    for key in (split, "both", "realistic"):
        found = _mapping(found.get(key))
    return found


def _decide(run: Run, directory: RunDirectory, last: str | None, running: bool) -> None:
    ended = last == "end" and not (run.stopped or "").startswith(_SIGNAL)
    if not os.path.lexists(directory.config) and (last or run.has_weights or run.checkpoints):
        run.problems.insert(0, f"{directory.config}: no such file")
    if ended and not run.has_weights:
        run.problems.append(f"{directory.weights}: no such file, though the training has ended")
    bad = [checkpoint.problem for checkpoint in run.checkpoints if checkpoint.problem]
    if bad and not ended and len(bad) == len(run.checkpoints):
        run.problems.append(bad[-1])  # nothing to go on from
    if running:
        run.state = State.running
    elif run.problems:
        run.state = State.damaged
    elif last == "error":
        run.state = State.failed
    # Weights that were copied somewhere, without their history, are as good.
    elif ended or (last is None and run.has_weights and not run.checkpoints):
        run.state = State.finished


def _attempt(run: Run, read: Callable[[], _T]) -> _T | None:
    """What `read` gives; what it cannot read becomes a problem of the run, in one line."""
    try:
        return read()
    except (MmkgcError, OSError, ValueError, RecursionError) as error:
        run.problems.append(" ".join(str(error).split()))
        return None


def _regular(path: Path) -> Path:
    """The path of a file that can be read without waiting for somebody to write into it."""
    if not path.is_file():
        raise DataError(f"{path}: {'not a file' if path.exists() else 'no such file'}")
    return path


def _object(path: Path) -> dict[str, Any]:
    value = read_json(_regular(path))
    if not isinstance(value, dict):
        raise DataError(f"{path}: not a JSON object")
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
    """A finite number; JSON of ours holds no other, files of who knows whom may."""
    if type(value) not in (int, float) or not math.isfinite(value):
        return None
    return float(value)
