"""Shared by the commands that download files: the flag --offline and progress."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkgc_cli.commands._shell import log, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

OfflineFlag = Annotated[
    bool,
    typer.Option("--offline", envvar="MMKGC_OFFLINE", help="Use cached downloads only."),
]


class Downloads:
    """Progress of downloads on stderr: a bar on a terminal, otherwise lines of text."""

    def __init__(self) -> None:
        self._bar: Progress | None = None
        self._task: TaskID | None = None
        self._name = ""
        self._printed_at = 0.0

    def __enter__(self) -> Downloads:
        return self

    def __exit__(self, *_: object) -> None:
        if self._bar:
            self._bar.stop()

    def progress(self, name: str, received: int, total: int | None) -> None:
        """Shows the progress of the download of a file."""
        if not log.is_terminal:
            now = time.monotonic()
            if name != self._name or now - self._printed_at > 10:
                size = "" if total is None else f" of {total / 1e6:.2f} MB"
                if name != self._name:
                    say(f"downloading {name}{size and f' ({size[4:]})'}")
                else:
                    say(f"  {received / 1e6:.2f} MB{size}")
                self._name, self._printed_at = name, now
            return
        if self._bar is None:
            from rich.progress import (
                BarColumn,
                DownloadColumn,
                Progress,
                TextColumn,
                TransferSpeedColumn,
            )

            columns: list[Any] = [
                TextColumn("{task.description}"),
                BarColumn(),
                DownloadColumn(),
                TransferSpeedColumn(),
            ]
            self._bar = Progress(*columns, console=log.console, transient=True)
            self._bar.start()
        if name != self._name or self._task is None:
            if self._task is not None:
                self._bar.remove_task(self._task)
            self._task, self._name = self._bar.add_task(name, total=total), name
        self._bar.update(self._task, completed=received, total=total)
