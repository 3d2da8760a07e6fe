"""Texts of entities from a table, JSON lines, or a folder with one file per entity."""

from __future__ import annotations

import functools
import hashlib
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.extraction.contract import Input, InputOptions, InputSet, Skip, Skipped
from mmkgc_cli.extraction.lines import (
    LONGEST,
    HashedLines,
    Line,
    decode_id,
    decode_text,
    read_at,
    too_long_skip,
)
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.state.parsing import parse_json
from mmkgc_cli.text import counted

# Header columns or JSON keys with texts, alone or after an underscore as in `wikidata_label`;
# titles come before descriptions.
_TITLE = re.compile(r"(?:.*_)?(?:label|name|title)")
_BODY = re.compile(r"(?:.*_)?(?:description|text)")
JOINT = ": "

_Location = tuple[int, int, int]  # line number, offset, length


def find(graph: Graph, options: InputOptions) -> InputSet[str]:
    """Finds texts in a folder, a ``.jsonl`` file, or a table with tabs.

    Only the locations of texts are kept; texts are read again when they are encoded.

    Raises:
        DataError: the source cannot be used.
        UsageError: no source is given, or --columns does not apply to it.
    """
    path = options.path
    if path is None:
        raise UsageError("no source of texts", fix="add --input FILE or FOLDER")
    if path.is_dir():
        if options.columns:
            raise UsageError(
                f"--columns: {path} is a folder of texts, which has no columns",
                fix="remove --columns",
            )
        return _find_files(graph, path)
    return _find_lines(graph, path, options.columns)


@dataclass
class _Index:
    """Locations of texts by entity, skipped inputs, and ids that are not in the graph."""

    entities: frozenset[str]
    locations: dict[str, list[_Location]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    outside: set[str] = field(default_factory=set)
    example: str = ""

    def knows(self, name: str) -> bool:
        """Whether the graph has this entity; otherwise adds it to `outside`."""
        if name in self.entities:
            return True
        self.example = self.example or name
        self.outside.add(name)
        return False


def _find_files(graph: Graph, folder: Path) -> InputSet[str]:
    """Files ``ID.txt``; characters that a file name cannot contain are percent-encoded."""
    index = _Index(frozenset(graph.entities))
    inputs: dict[str, list[Input[str]]] = {}
    digest = hashlib.sha256()
    for path in sorted(folder.glob("*.txt")):
        name = path.name.removesuffix(".txt")
        name = name if name in index.entities else unquote(name)
        if not index.knows(name):
            continue
        try:
            with path.open("rb") as file:
                content = hashlib.file_digest(file, "sha256").hexdigest()
            digest.update(f"{path.name}\n{content}\n".encode("utf-8", "surrogateescape"))
            _file_text(path)
        except OSError as error:
            index.skipped.append(Skipped(name, str(path), error.strerror or str(error)))
        except Skip as reason:
            index.skipped.append(Skipped(name, str(path), str(reason)))
        else:
            load = functools.partial(_file_text, path)
            entry = Input(name, str(path), load, path.stat().st_size)
            inputs.setdefault(name, []).append(entry)
    return InputSet(
        inputs, f"{folder.name} sha256 {digest.hexdigest()}", "",
        index.skipped, len(index.outside), index.example,
    )  # fmt: skip


def _file_text(path: Path) -> str:
    size = path.stat().st_size
    if size > LONGEST:
        raise too_long_skip(size)
    return _usable(decode_text(path.read_bytes()))


def _usable(text: str) -> str:
    """Normalises white space; in a text without any, underscores are spaces (``Jeremy_Irons``).

    Raises:
        Skip: the text is empty, or contains half a surrogate pair (from JSON).
    """
    words = text.split()
    if not words:
        raise Skip("the text is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Skip("contains half a surrogate pair") from None
    return " ".join(words) if len(words) > 1 else words[0].replace("_", " ").strip()


def _find_lines(graph: Graph, path: Path, columns: Sequence[str]) -> InputSet[str]:
    index = _Index(frozenset(graph.entities))
    lines = HashedLines(path)
    reader: _Table | _Json | None = None
    for line in lines:
        if reader is None:
            reader = _reader(path, line, columns, index.entities)
            if isinstance(reader, _Table) and reader.header:
                continue
        name = ""
        try:
            name = reader.entity(line)
            if not index.knows(name):
                continue
            if line.length > LONGEST:
                raise too_long_skip(line.length)
            reader.texts(line.raw)
        except Skip as reason:
            index.skipped.append(Skipped(name, f"{path}:{line.number}", str(reason)))
        else:
            index.locations.setdefault(name, []).append((line.number, line.start, line.length))
    assert reader is not None  # a file without text raises an error before
    inputs = {
        name: [
            Input(
                name, f"{path}:{locations[0][0]}",
                functools.partial(_joined, path, reader, locations),
                sum(length for _, _, length in locations),
            )
        ]
        for name, locations in index.locations.items()
    }  # fmt: skip
    return InputSet(
        inputs, lines.source, reader.description, index.skipped, len(index.outside), index.example
    )


def _joined(path: Path, reader: _Table | _Json, locations: Sequence[_Location]) -> str:
    """The distinct texts of all lines of an entity, joined."""
    length = sum(length for _, _, length in locations)
    if length > LONGEST:
        raise too_long_skip(length)
    texts: dict[str, None] = {}
    for _, start, size in locations:
        texts.update(dict.fromkeys(reader.texts(read_at(path, start, size))))
    return JOINT.join(texts)


@dataclass(frozen=True)
class _Table:
    """A table with tabs; quotes have no special meaning."""

    path: Path
    header: bool
    width: int
    columns: tuple[int, ...]
    description: str
    # Columns of descriptions, where the word None means no description, as in published tables.
    bodies: frozenset[int] = frozenset()

    def entity(self, line: Line) -> str:
        return decode_id(line.raw.partition(b"\t")[0])

    def texts(self, raw: bytes) -> list[str]:
        fields = decode_text(raw).split("\t")
        if len(fields) != self.width:
            raise Skip(f"{counted(len(fields), 'column')}, expected {self.width}")
        return _texts(
            "" if column in self.bodies and fields[column] == "None" else fields[column]
            for column in self.columns
        )


@dataclass(frozen=True)
class _Json:
    """A file with one JSON object per line."""

    path: Path
    key: str
    keys: tuple[str, ...]
    description: str

    def entity(self, line: Line) -> str:
        if line.length > LONGEST:
            raise too_long_skip(line.length)
        name = _object(line.raw).get(self.key)
        if not isinstance(name, str):
            raise Skip(f"{self.key!r} is not an entity name")
        return name

    def texts(self, raw: bytes) -> list[str]:
        value = _object(raw)
        texts = []
        for key in self.keys:
            part = value.get(key)
            parts = part if isinstance(part, list) else [part]
            for text in parts:
                if text is not None and not isinstance(text, str):
                    raise Skip(f"{key!r} is not a text")
                texts.append(text or "")
        return _texts(texts)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = parse_json(decode_text(raw), "", fix="")
    except DataError as error:
        raise Skip(str(error).partition(": ")[2]) from None
    if not isinstance(value, dict):
        raise Skip("not a JSON object")
    return value


def _texts(parts: Any) -> list[str]:
    texts = []
    for part in parts:
        if "\0" in part:
            raise Skip("contains a NUL, so it is not a text")
        if part.strip():
            texts.append(_usable(part))
    if not texts:
        raise Skip("the text is empty")
    return texts


def _reader(
    path: Path, first_line: Line, columns: Sequence[str], entities: frozenset[str]
) -> _Table | _Json:
    """Makes the reader of a file from its first line."""
    if path.suffix == ".jsonl":
        try:
            keys = list(_object(first_line.raw))
        except Skip as reason:
            raise DataError(
                f"{path}:{first_line.number}: {reason}", fix="write one JSON object per line"
            ) from None
        key = next((k for k in ("entity", "id") if k in keys), None)
        if key is None:
            raise DataError(
                f"{path}:{first_line.number}: neither 'entity' nor 'id' among the keys "
                f"{', '.join(map(repr, keys))}",
                fix="add the entity under one of these keys",
            )
        texts = tuple(columns) or _columns_of_texts(path, [k for k in keys if k != key])
        return _Json(path, key, texts, f"keys {', '.join(texts)}")
    try:
        fields = decode_text(first_line.raw).split("\t")
    except Skip as reason:
        raise DataError(
            f"{path}:{first_line.number}: {reason}", fix="convert the file to UTF-8 text"
        ) from None
    if len(fields) < 2:
        raise DataError(
            f"{path}:{first_line.number}: one column, expected an entity and a text",
            fix="separate them with a tab",
        )
    has_text_column = any(_TITLE.fullmatch(f) or _BODY.fullmatch(f) for f in fields[1:])
    header = fields[0].strip(" ") not in entities and (has_text_column or _any_in(columns, fields))
    if columns:
        text_columns = tuple(_numbers(path, first_line.number, columns, fields, header))
        description = f"columns {', '.join(columns)}"
    elif header:
        names = _columns_of_texts(path, fields[1:])
        text_columns = tuple(fields.index(name, 1) for name in names)
        description = f"columns {', '.join(names)}"
    elif len(fields) == 2:
        text_columns, description = (1,), ""
    else:
        raise DataError(
            f"{path}:{first_line.number}: {counted(len(fields), 'column')} and no header with a "
            "name that ends in label, name, title, description or text",
            fix="select the text columns, for example with --columns 2,3",
        )
    bodies = frozenset(i for i in text_columns if header and _BODY.fullmatch(fields[i]))
    if bodies:
        names_of_bodies = ", ".join(fields[i] for i in sorted(bodies))
        description += f"; the word None in {names_of_bodies} is none"
    return _Table(path, header, len(fields), text_columns, description, bodies)


def _any_in(columns: Sequence[str], fields: Sequence[str]) -> bool:
    return any(column in fields[1:] for column in columns)


def _columns_of_texts(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    text_columns = [
        name for pattern in (_TITLE, _BODY) for name in names if pattern.fullmatch(name)
    ]
    if not text_columns:
        raise DataError(
            f"{path}:1: none of {', '.join(map(repr, names))} ends in label, name, title, "
            "description or text",
            fix="select the text columns with --columns NAME,NAME",
        )
    return tuple(text_columns)


def _numbers(
    path: Path, line: int, columns: Sequence[str], fields: Sequence[str], header: bool
) -> list[int]:
    """Column numbers from header names or from numbers, where column 1 is the entity."""
    numbers = []
    for column in columns:
        if header and column in fields[1:]:
            numbers.append(fields.index(column, 1))
        elif column.isascii() and column.isdigit() and 2 <= int(column) <= len(fields):
            numbers.append(int(column) - 1)
        else:
            suggestion = nearest(column, fields[1:]) if header else "there is no header"
            raise DataError(
                f"{path}:{line}: --columns {column}: no such column ({suggestion})",
                fix=f"give a name of the header or a number from 2 to {len(fields)}",
            )
    return numbers
