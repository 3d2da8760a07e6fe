"""Finds the runs below a folder."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

from mmkgc_cli.errors import DataError
from mmkgc_cli.runs.status import Run, State, inspect, is_run


def list_runs(folder: Path) -> list[Run]:
    """All runs in and below a folder, last changed first; symbolic links are not followed.

    An unreadable subfolder is listed as a damaged run, since it may contain one.

    Raises:
        DataError: when the folder itself is missing or unreadable.
    """
    if not folder.is_dir():
        what = "is a file, expected a folder" if folder.exists() else "no such folder"
        raise DataError(
            f"{folder}: {what}",
            fix="name the folder that contains the runs: mmkgc runs list FOLDER",
        )
    runs = []
    for path, problem in _folders(folder):
        name = path.relative_to(folder).as_posix()
        if name == ".":
            name = path.resolve().name or str(path)
        if problem and path == folder:
            raise DataError(
                f"{path}: cannot be read: {problem}", fix=f"make it readable: chmod u+rx {path}"
            )
        if problem:
            reason = f"{path}: cannot be read: {problem}"
            runs.append(Run(path, name, State.damaged, problems=[reason]))
        elif is_run(path):
            runs.append(inspect(path, name))
    return sorted(runs, key=lambda run: (-run.touched, run.name))


def _folders(top: Path) -> Iterator[tuple[Path, str]]:
    """Folders from `top` down without ``checkpoints``, each with the reason if unreadable."""
    waiting = [top]
    while waiting:
        folder = waiting.pop()
        try:
            with os.scandir(folder) as entries:
                subfolders = sorted(
                    entry.name
                    for entry in entries
                    if entry.is_dir(follow_symlinks=False) and entry.name != "checkpoints"
                )
        except OSError as error:
            yield folder, error.strerror or str(error)
            continue
        waiting += [folder / name for name in reversed(subfolders)]
        yield folder, ""
