"""Numbers of entities: a table of entity, attribute and value."""

from __future__ import annotations

import functools
import math
import re
from dataclasses import dataclass
from pathlib import Path

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.extraction.contract import Found, Input, InputOptions, Skip, Skipped
from mmkgc_cli.extraction.lines import LONGEST, HashedLines, Line, name_of, text_of, too_long
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.text import counted

# Python's own parser takes 1_000, inf, and digits of any script.
_NUMBER = re.compile(r"[+-]?(?:[0-9]+\.?[0-9]*|\.[0-9]+)(?:[eE][+-]?[0-9]+)?")
_COLUMNS = ("attribute", "value")


@dataclass(frozen=True)
class Number:
    """A value of an attribute, finite, and how it was written."""

    attribute: str
    value: float
    written: str


Numbers = tuple[Number, ...]


def find(graph: Graph, options: InputOptions) -> Found[Numbers]:
    """Reads ``entity<TAB>attribute<TAB>value`` rows, or a table with a header that has these.

    All numbers of an entity are one input.

    Raises:
        DataError: when the file cannot be used at all.
        UsageError: where nothing says which file.
    """
    path = options.path
    if path is None:
        raise UsageError("say where the numbers are with --input FILE")
    entities = frozenset(graph.entities)
    found: dict[str, list[Number]] = {}
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
        name = name_of(line.raw.partition(b"\t")[0])
        if name not in entities:
            example = example or name
            outside.add(name)
            continue
        try:
            number = columns.number(line)
        except Skip as reason:
            skipped.append(Skipped(name, f"{path}:{line.number}", str(reason)))
        else:
            found.setdefault(name, []).append(number)
            first_line.setdefault(name, line.number)
    inputs = {
        name: [Input(name, f"{path}:{first_line[name]}", functools.partial(tuple, numbers),
                     len(numbers))]
        for name, numbers in found.items()
    }  # fmt: skip
    return Found(inputs, lines.source, "", skipped, len(outside), example)


@dataclass(frozen=True)
class _Columns:
    width: int
    attribute: int
    value: int

    def number(self, line: Line) -> Number:
        """The number of a line.

        Raises:
            Skip: when there is none.
        """
        if line.length > LONGEST:
            raise too_long(line.length)
        fields = text_of(line.raw).split("\t")
        if len(fields) != self.width:
            raise Skip(f"{counted(len(fields), 'column')}, expected {self.width}")
        attribute, written = fields[self.attribute].strip(), fields[self.value].strip()
        if not attribute:
            raise Skip("the attribute has no name")
        return Number(attribute, parsed(written), written)


def parsed(written: str) -> float:
    """A finite number, written with a point.

    Raises:
        Skip: for anything else.
    """
    if not _NUMBER.fullmatch(written):
        shown = repr(written if len(written) <= 40 else written[:40] + "…")
        comma = _NUMBER.fullmatch(written.replace(",", ".", 1)) and "," in written
        raise Skip(f"{shown} is no number" + (": write it with a point" if comma else ""))
    value = float(written)
    if not math.isfinite(value):
        raise Skip(f"{written[:40]!r} is too large for a number of 64 bits")
    return value


def _columns(path: Path, first: Line, entities: frozenset[str]) -> tuple[_Columns, bool]:
    """Where attribute and value stand, and whether the first line says so."""
    try:
        fields = text_of(first.raw).split("\t")
    except Skip as reason:
        raise DataError(f"{path}:{first.number}: {reason}") from None
    if name_of(fields[0].encode()) not in entities and set(_COLUMNS) <= set(fields):
        return _Columns(len(fields), *(fields.index(name) for name in _COLUMNS)), True
    if len(fields) != 3:
        raise DataError(
            f"{path}:{first.number}: {counted(len(fields), 'column')} and no header with "
            "'attribute' and 'value', expected entity, attribute and value, separated by tabs"
        )
    return _Columns(3, 1, 2), False
