"""Start and end positions of the fields of all lines of a block, computed with numpy."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.kg.readers.lines import plain_lines

Positions = NDArray[np.int64]

_TAB, _NEWLINE, _BLANK = 9, 10, 32


@dataclass(frozen=True)
class Fields:
    """Fields of n lines: column j of line i is ``data[starts[i, j]:ends[i, j]]``.

    `lines` contains the line numbers. Fields are not empty and have no blanks at either end.
    """

    data: NDArray[np.uint8]
    starts: Positions
    ends: Positions
    lines: Positions

    def first(self) -> list[str]:
        """The fields of the first line, as text."""
        return [
            self.data[start:end].tobytes().decode()
            for start, end in zip(self.starts[0], self.ends[0], strict=True)
        ]


def tab_fields(block: bytes, first_line: int, columns: int) -> Fields | None:
    """The tab-separated fields of all lines that are not blank.

    Returns None when a line has another number of fields than `columns` or an empty field, or when
    `plain_lines` refuses the block.
    """
    plain = plain_lines(block)
    if plain is None:
        return None
    data = np.frombuffer(plain, dtype=np.uint8)
    line_ends = np.flatnonzero(data == _NEWLINE)
    line_starts = np.concatenate([[0], line_ends[:-1] + 1])
    tabs = np.flatnonzero(data == _TAB)
    per_line = np.diff(np.searchsorted(tabs, np.append(line_starts, len(data))))
    lines = np.arange(first_line, first_line + len(line_ends))
    if (per_line != columns - 1).any() or _has_blank_line(data, line_starts, line_ends):
        kept = ~_blank_lines(data, line_starts, line_ends)
        if (per_line[kept] != columns - 1).any():
            return None
        tabs = tabs[np.repeat(kept, per_line)]
        line_starts, line_ends, lines = line_starts[kept], line_ends[kept], lines[kept]
    between = tabs.reshape(len(lines), columns - 1)
    starts = np.concatenate([line_starts[:, None], between + 1], axis=1)
    ends = np.concatenate([between, line_ends[:, None]], axis=1)
    _strip_blanks(data, starts, ends)
    return None if (starts >= ends).any() else Fields(data, starts, ends, lines)


def _has_blank_line(data: NDArray[np.uint8], starts: Positions, ends: Positions) -> bool:
    """Whether any line is blank; the first byte of each line decides nearly always."""
    first = data[starts]
    return bool((first <= _BLANK).any()) and bool(_blank_lines(data, starts, ends).any())


def _blank_lines(data: NDArray[np.uint8], starts: Positions, ends: Positions) -> NDArray[np.bool_]:
    visible = np.concatenate([[0], np.cumsum(data > _BLANK, dtype=np.int64)])
    return np.asarray(visible[ends] == visible[starts])


def _strip_blanks(data: NDArray[np.uint8], starts: Positions, ends: Positions) -> None:
    """Moves starts and ends past blanks, in place."""
    if (data[starts] != _BLANK).all() and (data[ends - 1] != _BLANK).all():
        return
    visible = np.flatnonzero(data != _BLANK)  # not empty: the last byte is a line end
    starts[...] = np.minimum(visible[np.searchsorted(visible, starts)], ends)
    last = np.searchsorted(visible, ends) - 1
    ends[...] = np.where(last >= 0, visible[last] + 1, 0)


def blank_fields(block: bytes, first_line: int, columns: int) -> Fields | None:
    """The fields, separated by runs of blanks and tabs, of all lines but blank ones and comments.

    A comment is a line that begins with the field ``#``, or that begins with the character ``#``
    and has another number of fields than `columns`.

    Returns None when a line has another number of fields, or when `plain_lines` refuses the block.
    """
    plain = plain_lines(block)
    if plain is None:
        return None
    data = np.frombuffer(plain, dtype=np.uint8)
    edges = np.diff((data > _BLANK).astype(np.int8), prepend=0)
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    line = np.searchsorted(np.flatnonzero(data == _NEWLINE), starts)
    is_first = np.concatenate([[True], line[1:] != line[:-1]]) if len(line) else np.zeros(0, bool)
    per_line = np.bincount(line) if len(line) else np.zeros(0, dtype=np.int64)
    hashes = is_first & (data[starts] == ord("#"))
    # A name may begin with a hash too: "#tag r a ." is a triple, "# tag" and "#tag" are comments.
    comments = line[hashes & ((ends - starts == 1) | (per_line[line] != columns))]
    if len(comments):
        kept = ~np.isin(line, comments)
        starts, ends, line = starts[kept], ends[kept], line[kept]
        per_line[comments] = 0
    if not np.isin(per_line, (0, columns)).all():
        return None
    return Fields(
        data,
        starts.reshape(-1, columns),
        ends.reshape(-1, columns),
        line[::columns] + first_line,
    )
