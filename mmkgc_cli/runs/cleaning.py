"""Makes room: what runs no longer need, shown before it goes."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass, field
from pathlib import Path

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.listing import list_runs
from mmkgc_cli.runs.status import File, Run, State, inspect
from mmkgc_cli.text import counted


@dataclass
class Removal:
    """What goes from one run, and why."""

    run: Run
    files: list[File]
    why: list[str]
    whole: bool = False
    problems: list[str] = field(default_factory=list)  # why some of it stayed

    @property
    def bytes(self) -> int:
        """How much room it frees."""
        return sum(file.bytes for file in self.files)


def plan(folder: Path, failed: bool) -> list[Removal]:
    """What `clean` would remove below a folder; changes nothing.

    Args:
        folder: where the runs are.
        failed: also whole runs that never got weights.

    Raises:
        DataError: when the folder cannot be read.
    """
    removals = (removal_of(run, failed) for run in list_runs(folder))
    return [removal for removal in removals if removal.files]


def removal_of(run: Run, failed: bool) -> Removal:
    """What can go from a run; nothing from one that is running.

    A run that was interrupted keeps its checkpoints: it can go on. So does one that is damaged,
    where they may be all that is left.
    """
    # Behind a link lies what is not of this run alone, its lock included.
    if run.state is State.running or RunDirectory(run.path).checkpoints.is_symlink():
        return Removal(run, [], [])
    if failed and _came_to_nothing(run):
        reason = "failed before it had weights"
        if run.state is State.interrupted:
            reason = "stopped before it had weights or a checkpoint"
        elif run.checkpoints:
            reason += f", {counted(len(run.checkpoints), 'checkpoint')} included"
        return Removal(run, list(run.files), [reason], whole=True)
    files: list[File] = list(run.leftovers)
    why: list[str] = []
    if run.state is State.finished and run.checkpoints:
        files += run.checkpoints
        why.append(f"{counted(len(run.checkpoints), 'checkpoint')} of a finished run")
    if run.leftovers:
        why.append(f"{counted(len(run.leftovers), 'temporary file')} of dead processes")
    return Removal(run, files, why)


def _came_to_nothing(run: Run) -> bool:
    if run.has_weights:
        return False
    return run.state is State.failed or (run.state is State.interrupted and not run.checkpoints)


def remove(planned: Removal, failed: bool) -> Removal:
    """Removes what `plan` found, as far as it still holds while no process trains the run.

    Returns:
        What is gone now, and what stayed for which reason.
    """
    directory = RunDirectory(planned.run.path)
    done = Removal(planned.run, [], planned.why, planned.whole)
    unlocked = not directory.lock.exists()
    try:
        with directory.locked():
            now = removal_of(inspect(directory.path, planned.run.name, ask_lock=False), failed)
            if now.whole != planned.whole:
                raise DataError(f"{directory.path}: has changed meanwhile; look at it again")
            agreed = {file.path for file in planned.files}
            files = [file for file in now.files if file.path in agreed]
            if any(file in files for file in now.run.checkpoints) and not planned.whole:
                _check_weights(directory)
            for file in files:
                try:
                    file.path.unlink()
                    done.files.append(file)
                except OSError as error:
                    reason = error.strerror or str(error)
                    done.problems.append(f"{file.path}: cannot be removed: {reason}")
            if unlocked:  # the lock was made just now, for this alone
                directory.lock.unlink(missing_ok=True)
        if unlocked or planned.whole:
            _remove_empty(directory)
    except MmkgcError as error:
        done.problems.append(str(error))
    return done


def _check_weights(directory: RunDirectory) -> None:
    """Reads all weights: were they damaged, the checkpoints would be all that is left.

    Raises:
        DataError: when they do not match their checksum.
    """
    from mmkgc_cli.state.weights import load_weights

    try:
        load_weights(directory.weights)
    except DataError as error:
        raise DataError(f"{directory.path}: keeps its checkpoints: {error}") from None


def _remove_empty(directory: RunDirectory) -> None:
    """The folders of a run, unless something else is in them."""
    for folder in (directory.checkpoints, directory.path):
        with contextlib.suppress(OSError):
            folder.rmdir()
