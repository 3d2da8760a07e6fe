"""The trace of a run: one JSON object a line, appended as things happen."""

from __future__ import annotations

import json
import time
from pathlib import Path
from types import TracebackType
from typing import IO, Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.state.atomic import make_folder, storage_errors


class Trace:
    """Appends events to a JSONL file; a killed process leaves at most one torn last line."""

    def __init__(self, path: Path) -> None:
        self.path = path
        make_folder(path.parent)
        with storage_errors(path):
            self._file: IO[str] = path.open("w", encoding="utf-8")
        self._start = time.monotonic()

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
        """Appends one event; `seconds` since the start of the run is added."""
        row = {"event": event, "seconds": round(time.monotonic() - self._start, 3), **fields}
        with storage_errors(self.path):
            self._file.write(json.dumps(row, ensure_ascii=False) + "\n")
            self._file.flush()


def read_trace(path: Path) -> list[dict[str, Any]]:
    """All whole events of a trace; a torn last line is left out.

    Raises:
        DataError: when the file cannot be read, or a line before the last is damaged.
    """
    try:
        lines = path.read_text(encoding="utf-8").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise DataError(f"{path}: cannot be read: {error}") from error
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
