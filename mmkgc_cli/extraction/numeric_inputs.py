"""Numbers of entities from a table of entity, attribute and value."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.extraction.contract import Input, InputOptions, InputSet, Skip, Skipped
from mmkgc_cli.extraction.lines import (
    LONGEST,
    HashedLines,
    Line,
    decode_id,
    decode_text,
    too_long_skip,
)
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.text import counted

# float() also accepts 1_000, inf, and digits of any script.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COLUMNS = ("attribute", "value")


@dataclass(frozen=True)
class Number:
    """A finite value of an attribute, and its text in the file."""

    attribute: str
    value: float
    written: str


Numbers = tuple[Number, ...]


def find(graph: Graph, options: InputOptions) -> InputSet[Numbers]:
    """Reads ``entity<TAB>attribute<TAB>value`` lines, or a table with such columns in its header.

    All numbers of an entity are one input.

    Raises:
        DataError: the file cannot be used.
        UsageError: no file is given.
    """
    path = options.path
    if path is None:
        raise UsageError("no file of numbers", fix="add --input FILE")
    entities = frozenset(graph.entities)
    numbers_by_entity: dict[str, list[Number]] = {}
    first_line: dict[str, int] = {}
    skipped: list[Skipped] = []
    outside: set[str] = set()
    example = ""
    lines = HashedLines(path)
    columns: _Columns | None = None
    for line in lines:
        if columns is None:
            columns, is_header = _columns(path, line, entities)
            if is_header:
                continue
        name = decode_id(line.raw.partition(b"\t")[0])
        if name not in entities:
            example = example or name
            outside.add(name)
            continue
        try:
            number = columns.number(line)
        except Skip as reason:
            skipped.append(Skipped(name, f"{path}:{line.number}", str(reason)))
        else:
            numbers_by_entity.setdefault(name, []).append(number)
            first_line.setdefault(name, line.number)
    inputs = {
        name: [Input(name, f"{path}:{first_line[name]}", functools.partial(tuple, numbers),
                     len(numbers))]
        for name, numbers in numbers_by_entity.items()
    }  # fmt: skip
    return InputSet(inputs, lines.source, "", skipped, len(outside), example)


@dataclass(frozen=True)
class _Columns:
    width: int
    attribute: int
    value: int

    def number(self, line: Line) -> Number:
        """Parses the number of a line.

        Raises:
            Skip: the line is invalid.
        """
        if line.length > LONGEST:
            raise too_long_skip(line.length)
        fields = decode_text(line.raw).split("\t")
        if len(fields) != self.width:
            raise Skip(f"{counted(len(fields), 'column')}, expected {self.width}")
        attribute, written = fields[self.attribute].strip(), fields[self.value].strip()
        if not attribute:
            raise Skip("the attribute has no name")
        return Number(attribute, parse_number(written), written)


def parse_number(written: str) -> float:
    """Parses a finite number with a decimal point.

    Raises:
        Skip: the text is not such a number.
    """
    if not _NUMBER.fullmatch(written):
        shown = repr(written if len(written) <= 40 else written[:40] + "…")
        comma = _NUMBER.fullmatch(written.replace(",", ".", 1)) and "," in written
        raise Skip(f"{shown} is not a number" + (": use a decimal point" if comma else ""))
    value = float(written)
    if not math.isfinite(value):
        raise Skip(f"{written[:40]!r} is too large for a 64-bit float")
    return value


def _columns(path: Path, first_line: Line, entities: frozenset[str]) -> tuple[_Columns, bool]:
    """Finds the columns of attribute and value, and whether the first line is a header."""
    try:
        fields = decode_text(first_line.raw).split("\t")
    except Skip as reason:
        raise DataError(
            f"{path}:{first_line.number}: {reason}", fix="convert the file to UTF-8 text"
        ) from None
    if decode_id(fields[0].encode()) not in entities and set(_COLUMNS) <= set(fields):
        return _Columns(len(fields), *(fields.index(name) for name in _COLUMNS)), True
    if len(fields) != 3:
        raise DataError(
            f"{path}:{first_line.number}: {counted(len(fields), 'column')} and no header with "
            "'attribute' and 'value'",
            fix="write entity, attribute and value, separated by tabs",
        )
    return _Columns(3, 1, 2), False
