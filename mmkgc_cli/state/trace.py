"""The trace of a run: one JSON object a line, appended as things happen."""

from __future__ import annotations

import errno
import json
import os
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.state.atomic import make_folder, read_text, storage_errors


class Trace:
    """Appends events to a JSONL file; a killed process leaves at most one torn last line.

    Each event is one unbuffered write, so nothing is left to fail when the file is closed.
    """

    def __init__(
        self,
        path: Path,
        at: int = 0,
        seconds: float = 0.0,
        listener: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Begins anew, or goes on `at` bytes, `seconds` after the start; the rest is dropped.

        What is written is then shown to the `listener`.
        """
        self.path = path
        make_folder(path.parent)
        with storage_errors(path):
            # A file that is gone, or shorter than it was, is no reason not to go on.
            at = min(at, path.stat().st_size) if path.is_file() else 0
            self._file: IO[bytes] = path.open("r+b" if at else "wb", buffering=0)
            self._file.truncate(at)
            self._file.seek(0, os.SEEK_END)
        self._start = time.monotonic() - seconds
        self._listener = listener

    @property
    def position(self) -> tuple[int, float]:
        """Bytes written so far and seconds since the start, to go on from."""
        return self._file.tell(), time.monotonic() - self._start

    def sync(self) -> tuple[int, float]:
        """`position`, once everything up to there is on the disk.

        Raises:
            DataError: when the storage refuses.
        """
        with storage_errors(self.path):
            os.fsync(self._file.fileno())
        return self.position

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._file.close()

    def write(self, event: str, **fields: Any) -> None:
        """Appends one event; `seconds` since the start of the run is added.

        Raises:
            ValueError: when a field would hide `event` or `seconds`.
            DataError: when the storage refuses.
        """
        row: dict[str, Any] = {"event": event, "seconds": round(time.monotonic() - self._start, 3)}
        if clash := row.keys() & fields.keys():
            raise ValueError(f"a trace event cannot have fields named {sorted(clash)}")
        row |= fields
        line = json.dumps(row).encode() + b"\n"
        with storage_errors(self.path):
            if self._file.write(line) != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
        if self._listener:
            self._listener(row)


def read_trace(path: Path) -> list[dict[str, Any]]:
    """All whole events of a trace; a torn last line is left out.

    Raises:
        DataError: when the file cannot be read, or a line before the last is damaged.
    """
    lines = read_text(path).split("\n")
    events = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            events.append(json.loads(line))
        except json.JSONDecodeError:
            if number >= len(lines):  # no newline followed it: the write was cut off
                break
            raise DataError(f"{path}:{number}: not a JSON object") from None
    return events
