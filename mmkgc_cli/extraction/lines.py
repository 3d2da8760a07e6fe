"""Lines of a file by their place, so that what they hold is read again when it is needed.

Unlike `kg.readers.lines`, which refuses a file with a bad line, this says what is wrong with a line
and goes on: one bad text must not cost the others.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import Skip
from mmkgc_cli.kg.readers.lines import BOM, open_source

LONGEST = 1 << 20  # bytes of a text, or of a line: more is no text of one entity


@dataclass(frozen=True)
class Line:
    """A line without its end: its number from 1, where it begins, how long it is, and its bytes.

    `raw` is the first `LONGEST` bytes where the line is longer.
    """

    number: int
    start: int
    length: int
    raw: bytes


class HashedLines:
    """Goes through the lines of a file that are not blank; `source` then names all its bytes."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()

    @property
    def source(self) -> str:
        """File name and SHA-256 of what was read."""
        return f"{self.path.name} sha256 {self._digest.hexdigest()}"

    def __iter__(self) -> Iterator[Line]:
        """The lines.

        Raises:
            DataError: when the file is missing, a folder, unreadable, empty, or UTF-16.
        """
        open_source(self.path)
        number = start = 0
        with self.path.open("rb") as file:
            while piece := file.readline(LONGEST + 2):
                number += 1
                self._digest.update(piece)
                raw, length = piece, len(piece)
                while len(piece) == LONGEST + 2 and not piece.endswith(b"\n"):
                    piece = file.readline(LONGEST + 2)
                    self._digest.update(piece)
                    length += len(piece)
                begin, start = start, start + length
                if number == 1 and raw.startswith(BOM):
                    raw, begin, length = raw[len(BOM) :], begin + len(BOM), length - len(BOM)
                if length <= LONGEST + 2:
                    raw = raw.rstrip(b"\r\n")
                    length = len(raw)
                if raw.strip(b" \t"):
                    yield Line(number, begin, length, raw)


def text_of(raw: bytes) -> str:
    """Bytes as a text.

    Raises:
        Skip: where they are not UTF-8, or hold a NUL.
    """
    if (at := raw.find(b"\0")) >= 0:
        raise Skip(f"holds a NUL at byte {at + 1}; is this a text?")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Skip(
            f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"
        ) from None


def too_long(length: int) -> Skip:
    """What to raise for more bytes than a text may have."""
    return Skip(f"{length / 2**20:.1f} MiB, and a text may have {LONGEST >> 20} MiB")


def read_at(path: Path, start: int, length: int) -> bytes:
    """Bytes of a file.

    Raises:
        DataError: when they are no longer there.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(length)
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    if len(data) < length:
        raise DataError(f"{path}: became shorter while it was read; begin again")
    return data


def name_of(raw: bytes) -> str:
    """An id as it stands in a file, for messages too: what is not UTF-8 is escaped."""
    return raw.decode("utf-8", "backslashreplace").strip(" ")
