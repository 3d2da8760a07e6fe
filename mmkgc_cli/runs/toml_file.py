"""Reads TOML files with the line number of each key, for messages."""

from __future__ import annotations

import io
import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmkgc_cli.state.atomic import read_text
from mmkgc_cli.state.parsing import parse_toml

# Keys from the outermost table inwards; an int is an index in an array of tables.
Keys = tuple[str | int, ...]
NO_LINES: Mapping[Keys, int] = MappingProxyType({})


@dataclass(frozen=True)
class TomlFile:
    """The values of a file, its name, and the line of each key and table, counted from 1."""

    values: dict[str, Any]
    name: str
    lines: Mapping[Keys, int]

    def location(self, *keys: str | int) -> str:
        """Returns ``FILE:LINE`` of a key, or of the table around it; ``FILE`` without a line."""
        for n in range(len(keys), 0, -1):
            if line := self.lines.get(keys[:n]):
                return f"{self.name}:{line}"
        return self.name


NO_FILE = TomlFile({}, "", NO_LINES)


def read_toml(path: Path) -> TomlFile:
    """Reads a TOML file.

    Raises:
        DataError: when the file is missing or not TOML; names the line.
    """
    text = read_text(path)
    return TomlFile(parse_toml(text, str(path)), str(path), dict(_lines(text)))


@dataclass(frozen=True)
class Statement:
    """The text of a table header, of a ``key = value``, or of a line with neither.

    `table` holds the keys of the table around it, `keys` those of a ``key = value``.
    """

    text: str
    line: int
    table: Keys
    keys: tuple[str, ...] = ()
    is_header: bool = False


def statements(text: str) -> Iterator[Statement]:
    """Splits valid TOML into statements, in order; their joined texts equal `text`."""
    table: Keys = ()
    arrays: dict[Keys, int] = {}
    first, pending = 0, ""
    closing: tuple[str, ...] = ()
    # Other separators of lines, such as U+2028, may be in comments and strings of TOML.
    for number, line in enumerate(io.StringIO(text, newline="\n"), start=1):
        if not pending:
            first = number
            if line.lstrip().startswith("["):
                values = tomllib.loads(line)
                is_array = line.lstrip().startswith("[[")
                table = _with_indices(arrays, _path(values, is_array=is_array), is_array)
                yield Statement(line, number, table, is_header=True)
                continue
        pending += line
        closing = _closing_after(line, closing)
        if closing:
            continue  # a string or an array that continues on the next line
        values = tomllib.loads(pending)
        keys = []
        while isinstance(values, dict) and len(values) == 1:
            ((key, values),) = values.items()
            keys.append(key)
        yield Statement(pending, first, table, tuple(keys))
        pending = ""


_QUOTES = ('"""', "'''", '"', "'")
_BRACKETS = {"[": "]", "{": "}"}


def _closing_after(line: str, closing: tuple[str, ...]) -> tuple[str, ...]:
    """What is open at the end of a line of valid TOML, as the tokens that close it.

    Args:
        line: a line of a ``key = value``.
        closing: what was open at the end of the line before, outermost first.
    """
    i = 0
    while i < len(line):
        quote = closing[-1] if closing and closing[-1] in _QUOTES else ""
        if quote and line[i] == "\\" and quote[0] == '"':
            i += 2
        elif quote and line.startswith(quote, i):
            closing = closing[:-1]
            i += len(quote)
            while len(quote) == 3 and line.startswith(quote[0], i):
                i += 1  # quotes before the last three belong to the string
        elif quote:
            i += 1
        elif line[i] == "#":
            break
        elif opening := next((q for q in _QUOTES if line.startswith(q, i)), ""):
            closing = (*closing, opening)
            i += len(opening)
        else:
            if line[i] in _BRACKETS:
                closing = (*closing, _BRACKETS[line[i]])
            elif closing and line[i] == closing[-1]:
                closing = closing[:-1]
            i += 1
    return closing


def _lines(text: str) -> Iterator[tuple[Keys, int]]:
    """Returns the keys in valid TOML with their line numbers."""
    for statement in statements(text):
        if statement.is_header:
            yield statement.table, statement.line
        elif statement.keys:
            for keys in _nested(tomllib.loads(statement.text)):
                yield (*statement.table, *keys), statement.line


def _path(header: Any, *, is_array: bool) -> tuple[str, ...]:
    """Returns the keys of a parsed header."""
    keys = []
    while isinstance(header, dict) and header:
        ((key, header),) = header.items()
        keys.append(key)
    assert isinstance(header, list) == is_array
    return tuple(keys)


def _with_indices(arrays: dict[Keys, int], path: tuple[str, ...], is_array: bool) -> Keys:
    """Returns the keys of a header, with an index after each array of tables."""
    keys: Keys = ()
    for n, key in enumerate(path, start=1):
        keys = (*keys, key)
        if n == len(path) and is_array:
            arrays[keys] = arrays.get(keys, -1) + 1
        if keys in arrays:
            keys = (*keys, arrays[keys])
    return keys


def _nested(table: Mapping[str, Any]) -> Iterator[Keys]:
    for key, value in table.items():
        yield (key,)
        if isinstance(value, dict):
            yield from ((key, *rest) for rest in _nested(value))
