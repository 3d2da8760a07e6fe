"""Text files: BOM, line ends, encodings, count lines, and errors with a line number.

`read_blocks` yields blocks of whole lines for readers that use numpy. `read_lines` yields single
lines and is also used to find the first bad line of a block that a reader refused.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

from mmkgc_cli.errors import DataError
from mmkgc_cli.state.regular import open_regular

# Control characters in names would corrupt tables of ranks and terminals.
_CONTROL = re.compile(rb"[\x00-\x08\x0a-\x1f\x7f]")
_CONTROLS_IN_BLOCK = bytes([*range(9), *range(11, 32), 127])
_LINE_ENDS = re.compile(rb"\r+\n")
_MAX_DIGITS = 18
BLOCK = 1 << 23  # bytes per read
_LONGEST_LINE = 1 << 24

# Fixes shared by the readers.
FIX_LINE = "correct the line, or choose another --format"
FIX_EMPTY = "provide a file with at least one triple"
_FIX_UTF8 = "convert the file to UTF-8, for instance with iconv"
_FIX_BINARY = "check that this is a text file"

BOM = b"\xef\xbb\xbf"
_WIDE_BOMS = {b"\xff\xfe": "UTF-16", b"\xfe\xff": "UTF-16"}


def require_folder(path: Path) -> None:
    """Checks that `path` is a folder.

    Raises:
        DataError: when it is a file or does not exist.
    """
    if not path.is_dir():
        state = "is a file, expected a folder" if path.exists() else "no such folder"
        raise DataError(f"{path}: {state}", fix="check the path of the folder")


def open_source(path: Path) -> None:
    """Checks that `path` is a readable, non-empty regular file.

    Raises:
        DataError: when it is missing, unreadable, empty, or not a regular file, such as a pipe.
    """
    with open_regular(path) as file:
        start = file.read(3)
    if not start or (start == BOM and path.stat().st_size == len(BOM)):
        raise DataError(f"{path}: the file is empty", fix="check that it was copied completely")
    for bom, name in _WIDE_BOMS.items():
        if start.startswith(bom):
            raise DataError(f"{path}:1: encoded as {name}, expected UTF-8", fix=_FIX_UTF8)


def read_lines(path: Path) -> Iterator[tuple[int, str]]:
    """Yields ``(line number from 1, text)`` of every non-blank line, without its line end.

    Raises:
        DataError: as `open_source`, or when a line is not UTF-8 or has a control character.
    """
    open_source(path)
    with path.open("rb") as file:
        for number, raw in enumerate(file, start=1):
            if number == 1:
                raw = raw.removeprefix(BOM)
            raw = raw.rstrip(b"\r\n")
            if not raw.strip(b" \t"):
                continue
            if match := _CONTROL.search(raw):
                raise DataError(
                    f"{path}:{number}: holds the control character 0x{match[0][0]:02x} at position "
                    f"{match.start() + 1}",
                    fix=f"remove the character, or {_FIX_BINARY}",
                )
            try:
                yield number, raw.decode("utf-8")
            except UnicodeDecodeError as error:
                raise DataError(
                    f"{path}:{number}: byte 0x{raw[error.start]:02x} at position "
                    f"{error.start + 1} is not UTF-8",
                    fix=_FIX_UTF8,
                ) from None


def read_blocks(path: Path) -> tuple[int | None, Iterator[tuple[int, bytes]]]:
    """Opens a file for reading in blocks of whole lines.

    Returns:
        the number on the count line, or None without one, and an iterator over ``(number of the
        first line, bytes of the block)``. A block has at least one line and about `BLOCK` bytes,
        without BOM and count line.

    Raises:
        DataError: as `open_source`; while iterating, for a line longer than 16 MiB.
    """
    open_source(path)
    with path.open("rb") as file:
        first = file.readline(len(BOM) + 4 * _MAX_DIGITS)
    text = first.removeprefix(BOM)
    count = parse_count(text.decode("ascii", "replace"))
    if count is None or not (text.endswith(b"\n") or len(first) == path.stat().st_size):
        return None, _blocks(path, len(first) - len(text), 1)
    return count, _blocks(path, len(first), 2)


def _blocks(path: Path, offset: int, line: int) -> Iterator[tuple[int, bytes]]:
    with path.open("rb") as file:
        file.seek(offset)
        rest = b""
        while chunk := file.read(BLOCK):
            block = rest + chunk
            cut = block.rfind(b"\n") + 1
            if not cut and len(block) > _LONGEST_LINE:
                raise DataError(
                    f"{path}:{line}: a line of more than {_LONGEST_LINE >> 20} MiB",
                    fix=_FIX_BINARY,
                )
            rest = block[cut:]
            if cut:
                yield line, block[:cut]
                line += block.count(b"\n")
        if rest:
            yield line, rest


def plain_lines(block: bytes) -> bytes | None:
    """The block with LF at the end of every line; None when `read_lines` would refuse it."""
    if b"\r" in block:
        block = _LINE_ENDS.sub(b"\n", block)
    if not block.endswith(b"\n"):
        block = block.rstrip(b"\r") + b"\n"
    if len(block.translate(None, _CONTROLS_IN_BLOCK)) != len(block):
        return None
    if not block.isascii():
        try:
            block.decode("utf-8")
        except UnicodeDecodeError:
            return None
    return block


def parse_count(text: str) -> int | None:
    """The number on a count line (a single non-negative integer), or None for any other line."""
    text = text.strip()
    is_number = text.isascii() and text.isdigit() and len(text) <= _MAX_DIGITS
    return int(text) if is_number else None


def check_count(path: Path, expected: int | None, count: int, noun: str) -> None:
    """Compares the number on a count line with the number of rows that follow.

    Raises:
        DataError: when they differ.
    """
    if expected is not None and expected != count:
        raise DataError(
            f"{path}:1: the count line says {expected}, but {count} {noun} follow",
            fix="restore the missing rows, or correct the count line",
        )
