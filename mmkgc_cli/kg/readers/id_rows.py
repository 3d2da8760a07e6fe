"""Rows of integer ids from large text files, read by blocks without a Python loop over rows."""

from __future__ import annotations

from pathlib import Path
from typing import NoReturn

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.readers.lines import (
    FIX_LINE,
    check_count,
    parse_count,
    read_blocks,
    read_lines,
)

_MAX_DIGITS = 10


def read_id_rows(path: Path, columns: str, noun: str) -> NDArray[np.int64]:
    """Reads rows of three ids separated by blanks, after an optional count line.

    Args:
        path: the file; LF or CRLF line ends, with or without a BOM.
        columns: the names of the columns, for messages ("head tail relation").
        noun: the plural noun for the rows, for messages ("triples").

    Returns:
        ``[n, 3]`` int64 in the order of the file.

    Raises:
        DataError: with file and line, for a row that is not three ids or a wrong count line.
    """
    count, blocks = read_blocks(path)
    parts: list[NDArray[np.int64]] = []
    for _, block in blocks:
        rows = _parse_block(block)
        if rows is None:
            _report_bad_row(path, columns)
        parts.append(rows)
    rows = np.concatenate(parts) if parts else np.empty((0, 3), dtype=np.int64)
    check_count(path, count, len(rows), noun)
    return rows


def _parse_block(block: bytes) -> NDArray[np.int64] | None:
    """The ids ``[n, 3]`` of whole lines; None when any line is neither blank nor three ids."""
    data = np.frombuffer(block, dtype=np.uint8)
    digit = (data >= ord("0")) & (data <= ord("9"))
    newline = data == ord("\n")
    blank = (data == ord(" ")) | (data == ord("\t")) | (data == ord("\r"))
    if not (digit | newline | blank).all():
        return None
    edges = np.diff(digit.astype(np.int8), prepend=0, append=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    if len(starts) == 0:
        return np.empty((0, 3), dtype=np.int64)
    line = np.searchsorted(np.flatnonzero(newline), starts)
    per_line = np.bincount(line)
    if not np.isin(per_line, (0, 3)).all():
        return None
    widths = ends - starts
    if widths.max() > _MAX_DIGITS:
        return None
    values = np.zeros(len(starts), dtype=np.int64)
    for digit_index in range(int(widths.max())):
        active = widths > digit_index
        digits = data[starts[active] + digit_index] - ord("0")
        values[active] = values[active] * 10 + digits
    return values.reshape(-1, 3)


def _report_bad_row(path: Path, columns: str) -> NoReturn:
    """Reads line by line to report the first bad one."""
    for number, text in read_lines(path):
        fields = text.replace("\t", " ").split(" ")
        fields = [field for field in fields if field]
        if number == 1 and parse_count(text) is not None:
            continue
        if len(fields) != 3:
            raise DataError(
                f"{path}:{number}: {len(fields)} columns, expected 3 ({columns})", fix=FIX_LINE
            )
        for field in fields:
            if parse_count(field) is None or len(field) > _MAX_DIGITS:
                raise DataError(
                    f"{path}:{number}: {field[:80]!r} is not an id, expected 3 integers "
                    f"({columns})",
                    fix=FIX_LINE,
                )
    raise DataError(f"{path}: contains characters that are neither digits nor blanks", fix=FIX_LINE)


def line_of_row(path: Path, row: int) -> int:
    """The line number of data row `row` (from 0), for messages."""
    current = -1
    for number, text in read_lines(path):
        if number == 1 and parse_count(text) is not None:
            continue
        current += 1
        if current == row:
            return number
    raise IndexError(row)
