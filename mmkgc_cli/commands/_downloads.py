"""Shared by the commands that download files: --offline, limits and progress."""

from __future__ import annotations

import math
import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkgc_cli.commands._shell import log, say

if TYPE_CHECKING:
    from rich.progress import Progress, TaskID

    from mmkgc_cli.kg.downloads import Cache

OfflineFlag = Annotated[
    bool,
    typer.Option("--offline", envvar="MMKGC_OFFLINE", help="Use cached downloads only."),
]
MaxBytesFlag = Annotated[
    int | None,
    typer.Option(
        "--max-bytes",
        envvar="MMKGC_MAX_BYTES",
        min=1,
        help="Largest download, and largest content of an archive. [default: 64 GiB]",
    ),
]
MaxSecondsFlag = Annotated[
    float | None,
    typer.Option(
        "--max-seconds",
        envvar="MMKGC_MAX_SECONDS",
        min=0.001,
        help="Longest time for the download of a file. [default: 86400]",
    ),
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

    def cache(self, *, offline: bool, max_bytes: int | None, max_seconds: float | None) -> Cache:
        """The settings of downloads from the flags of a command; None is the default.

        Raises:
            UsageError: when `max_seconds` is not finite.
        """
        from mmkgc_cli.errors import UsageError
        from mmkgc_cli.kg.downloads import MAX_BYTES, MAX_SECONDS, Cache

        if max_seconds is not None and not math.isfinite(max_seconds):
            raise UsageError(
                f"--max-seconds {max_seconds}: expected a finite number",
                fix="pass a number of seconds, such as --max-seconds 3600",
            )
        return Cache(
            Path(),
            offline=offline,
            progress=self.progress,
            max_bytes=MAX_BYTES if max_bytes is None else max_bytes,
            max_seconds=MAX_SECONDS if max_seconds is None else max_seconds,
        )

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
