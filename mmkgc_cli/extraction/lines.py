"""Lines of a file with their offsets, so that texts can be read again when they are encoded.

Unlike `kg.readers.lines`, which rejects a file with an invalid line, this module skips the line
and continues.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import Skip
from mmkgc_cli.kg.readers.lines import BOM, open_source

LONGEST = 1 << 20  # maximum bytes of a text or a line


@dataclass(frozen=True)
class Line:
    """A line without its line end: number from 1, offset and length in bytes, and its bytes.

    `raw` contains only the first `LONGEST` bytes of a longer line.
    """

    number: int
    start: int
    length: int
    raw: bytes


class HashedLines:
    """Iterates over the non-blank lines of a file and computes its SHA-256."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._digest = hashlib.sha256()

    @property
    def source(self) -> str:
        """File name and SHA-256 of the bytes read."""
        return f"{self.path.name} sha256 {self._digest.hexdigest()}"

    def __iter__(self) -> Iterator[Line]:
        """Iterates over the lines.

        Raises:
            DataError: the file is missing, a folder, unreadable, without text, or UTF-16.
        """
        open_source(self.path)
        number = start = 0
        is_blank = True
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
                    is_blank = False
                    yield Line(number, begin, length, raw)
        if is_blank:
            raise DataError(
                f"{self.path}: all lines are blank", fix="check that it was copied completely"
            )


def decode_text(raw: bytes) -> str:
    """Decodes UTF-8.

    Raises:
        Skip: the bytes are not UTF-8 or contain a NUL.
    """
    if (position := raw.find(b"\0")) >= 0:
        raise Skip(f"contains a NUL at byte {position + 1}, so it is not a text")
    try:
        return raw.decode("utf-8")
    except UnicodeDecodeError as error:
        raise Skip(
            f"byte 0x{raw[error.start]:02x} at position {error.start + 1} is not UTF-8"
        ) from None


def too_long_skip(length: int) -> Skip:
    """The `Skip` for a text of more than `LONGEST` bytes."""
    return Skip(f"{length / 2**20:.1f} MiB, expected at most {LONGEST >> 20} MiB")


def read_at(path: Path, start: int, length: int) -> bytes:
    """Reads bytes of a file.

    Raises:
        DataError: the file cannot be read, or is shorter than before.
    """
    try:
        with path.open("rb") as file:
            file.seek(start)
            data = file.read(length)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}", fix="check its permissions and the disk"
        ) from error
    if len(data) < length:
        raise DataError(
            f"{path}: became shorter while it was read",
            fix="run the command again when nothing changes the file",
        )
    return data


def decode_id(raw: bytes) -> str:
    """Decodes an id; bytes that are not UTF-8 are escaped."""
    return raw.decode("utf-8", "backslashreplace").strip(" ")
