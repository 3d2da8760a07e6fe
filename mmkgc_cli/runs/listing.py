"""Finds the runs below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mmkgc_cli.errors import DataError
from mmkgc_cli.runs.status import Run, State, inspect, is_run


def list_runs(folder: Path) -> list[Run]:
    """All runs in and below a folder, the one last touched first; symbolic links lead nowhere.

    A folder that cannot be read is listed as a damaged run: it may be one.

    Raises:
        DataError: when the folder itself is not there or cannot be read.
    """
    if not folder.is_dir():
        what = "is a file, expected a folder" if folder.exists() else "no such folder"
        raise DataError(f"{folder}: {what}; say where the runs are: mmkgc runs list FOLDER")
    runs = []
    for path, problem in _folders(folder):
        name = path.relative_to(folder).as_posix()
        if name == ".":
            name = path.resolve().name or str(path)
        if problem and path == folder:
            raise DataError(f"{path}: cannot be read: {problem}")
        if problem:
            reason = f"{path}: cannot be read: {problem}"
            runs.append(Run(path, name, State.damaged, problems=[reason]))
        elif is_run(path):
            runs.append(inspect(path, name))
    return sorted(runs, key=lambda run: (-run.touched, run.name))


def _folders(top: Path) -> Iterator[tuple[Path, str]]:
    """Folders from `top` down, and why one cannot be read; those within `checkpoints` are none."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                inside = sorted(
                    entry.name
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) and entry.name != "checkpoints"
                )
        except OSError as error:
            yield folder, error.strerror or str(error)
            continue
        waiting += [folder / name for name in reversed(inside)]
        yield folder, ""
