"""Finds and removes files that runs no longer need."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.listing import list_runs
from mmkgc_cli.runs.status import File, Run, State, inspect
from mmkgc_cli.state import files as files_layer
from mmkgc_cli.text import counted


@dataclass
class Removal:
    """The files to remove from one run, and why."""

    run: Run
    files: list[File]
    why: list[str]
    whole: bool = False
    problems: list[str] = field(default_factory=list)  # why files were kept

    @property
    def bytes(self) -> int:
        """The size of the files."""
        return sum(file.bytes for file in self.files)


def plan(folder: Path, failed: bool) -> list[Removal]:
    """The removals of `clean` below a folder; changes nothing.

    Args:
        folder: contains the runs.
        failed: whether to remove runs that never got weights.

    Raises:
        DataError: when the folder cannot be read.
    """
    removals = (removal_of(run, failed) for run in list_runs(folder))
    return [removal for removal in removals if removal.files]


def removal_of(run: Run, failed: bool) -> Removal:
    """The files that one run does not need; none of a running run.

    An interrupted run keeps its checkpoints, since it can be resumed; so does a damaged run, where
    they may be all that is left.
    """
    # A linked folder may belong to another run, and so may its lock.
    if run.state is State.running or RunDirectory(run.path).checkpoints.is_symlink():
        return Removal(run, [], [])
    if failed and _has_nothing(run):
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


def _has_nothing(run: Run) -> bool:
    if run.has_weights:
        return False
    return run.state is State.failed or (run.state is State.interrupted and not run.checkpoints)


def remove(planned: Removal, failed: bool) -> Removal:
    """Removes what `plan` found and the run, now locked, still does not need.

    Returns:
        The files that were removed, and problems with the others.
    """
    directory = RunDirectory(planned.run.path)
    done = Removal(planned.run, [], planned.why, planned.whole)
    unlocked = not directory.lock.exists()
    try:
        with directory.locked():
            now = removal_of(inspect(directory.path, planned.run.name, ask_lock=False), failed)
            if now.whole != planned.whole:
                raise DataError(
                    f"{directory.path}: has changed meanwhile",
                    fix=f"look at it again: mmkgc runs show {directory.path}",
                )
            agreed = {file.path for file in planned.files}
            files = [file for file in now.files if file.path in agreed]
            if any(file in files for file in now.run.checkpoints) and not planned.whole:
                _check_weights(directory)
            for file in files:
                try:
                    files_layer.unlink(file.path)
                    done.files.append(file)
                except OSError as error:
                    reason = error.strerror or str(error)
                    done.problems.append(f"{file.path}: cannot be removed: {reason}")
            if unlocked:  # the lock file was created just now
                files_layer.unlink(directory.lock, missing_ok=True)
        if unlocked or planned.whole:
            _remove_empty(directory)
    except MmkgcError as error:
        done.problems.append(str(error))
    return done


def _check_weights(directory: RunDirectory) -> None:
    """Reads all weights: if they are damaged, the checkpoints are all that is left.

    Raises:
        DataError: when the weights do not match their checksum.
    """
    from mmkgc_cli.state.weights import load_weights

    try:
        load_weights(directory.weights)
    except DataError as error:
        raise DataError(
            f"{directory.path}: keeps its checkpoints: {error}",
            fix=f"see what can be done: mmkgc runs show {directory.path}",
        ) from None


def _remove_empty(directory: RunDirectory) -> None:
    """Removes the folders of a run if they are empty."""
    for folder in (directory.checkpoints, directory.path):
        files_layer.remove_empty_folder(folder)
