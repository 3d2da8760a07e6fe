"""The trace of a run: one JSON object per line, one line per event."""

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
from mmkgc_cli.state import files
from mmkgc_cli.state.atomic import make_folder, read_text, storage_errors
from mmkgc_cli.state.parsing import parse_json


class Trace:
    """Appends events to a JSONL file; a killed process leaves at most one incomplete last line.

    Each event is one unbuffered write, so that closing the file cannot fail.
    """

    def __init__(
        self,
        path: Path,
        position: int = 0,
        seconds: float = 0.0,
        listener: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """Opens a new trace, or truncates one to `position` bytes to continue it.

        Args:
            path: the file.
            position: the length to continue from.
            seconds: time since the start of the run, up to `position`.
            listener: called with each event after it was written.
        """
        self.path = path
        make_folder(path.parent)
        with storage_errors(path):
            # The trace may have been removed or truncated since.
            position = min(position, path.stat().st_size) if path.is_file() else 0
            self._file: IO[bytes] = files.open_file(path, "r+b" if position else "wb", buffering=0)
            self._file.truncate(position)
            self._file.seek(0, os.SEEK_END)
            files.sync_folder(path.parent)
        self._start = time.monotonic() - seconds
        self._listener = listener

    @property
    def position(self) -> tuple[int, float]:
        """Length in bytes and seconds since the start of the run."""
        return self._file.tell(), time.monotonic() - self._start

    def sync(self) -> tuple[int, float]:
        """Flushes all events to the disk and returns `position`.

        Raises:
            DataError: when the storage fails.
        """
        with storage_errors(self.path):
            files.sync(self._file)
        return self.position

    def __enter__(self) -> Trace:
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        try:
            if error_type is None:
                self.sync()  # the last events come after the last checkpoint
        finally:
            self.close()

    def close(self) -> None:
        """Closes the file."""
        self._file.close()

    def write(self, event: str, **fields: Any) -> None:
        """Appends one event, with ``seconds`` since the start of the run.

        Raises:
            ValueError: for a field named ``event`` or ``seconds``.
            DataError: when the storage fails.
        """
        row: dict[str, Any] = {"event": event, "seconds": round(time.monotonic() - self._start, 3)}
        if clash := row.keys() & fields.keys():
            raise ValueError(f"a trace event cannot have fields named {sorted(clash)}")
        row |= fields
        line = json.dumps(row).encode() + b"\n"
        with storage_errors(self.path):
            rest = memoryview(line)
            while rest:  # a signal may interrupt a write
                count = self._file.write(rest)
                if not count:
                    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
                rest = rest[count:]
        if self._listener:
            self._listener(row)


def read_trace(path: Path) -> list[dict[str, Any]]:
    """All events of a trace, without an incomplete last line.

    Raises:
        DataError: when the file cannot be read, or an earlier line is damaged.
    """
    lines = read_text(path).split("\n")
    events = []
    for number, line in enumerate(lines, start=1):
        if not line:
            continue
        try:
            events.append(parse_json(line, str(path)))
        except DataError:
            if number >= len(lines):  # the last line without a newline: an incomplete write
                break
            raise DataError(
                f"{path}:{number}: not a JSON object", fix="restore the file, or remove that line"
            ) from None
    return events
