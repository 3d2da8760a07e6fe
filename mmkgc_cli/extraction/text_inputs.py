"""Texts of entities: a table, JSON lines, or a folder with a file an entity."""

from __future__ import annotations

import functools
import hashlib
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any
from urllib.parse import unquote

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.extraction.contract import Found, Input, InputOptions, Skip, Skipped
from mmkgc_cli.extraction.lines import (
    LONGEST,
    HashedLines,
    Line,
    name_of,
    read_at,
    text_of,
    too_long,
)
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.text import counted

# Columns of a header, or keys of JSON lines, that hold texts: by themselves, or after an underscore
# as in `wikidata_label`; titles before descriptions.
_TITLE = re.compile(r"(?:.*_)?(?:label|name|title)")
_BODY = re.compile(r"(?:.*_)?(?:description|text)")
JOINT = ": "

_Place = tuple[int, int, int]  # line number, where it starts, length


def find(graph: Graph, options: InputOptions) -> Found[str]:
    """Looks texts up: `path` is a folder, ``.jsonl``, or else a table with tabs.

    Only the places of texts are kept; they are read again when they are encoded.

    Raises:
        DataError: when the source cannot be used at all.
        UsageError: for columns that it cannot have.
    """
    path = options.path
    if path is None:
        raise UsageError("say where the texts are with --input FILE or FOLDER")
    if path.is_dir():
        if options.columns:
            raise UsageError(f"--columns: {path} is a folder of texts, which has no columns")
        return _find_files(graph, path)
    return _find_lines(graph, path, options.columns)


@dataclass
class _Index:
    """What was found, by entity."""

    entities: frozenset[str]
    places: dict[str, list[_Place]] = field(default_factory=dict)
    skipped: list[Skipped] = field(default_factory=list)
    outside: set[str] = field(default_factory=set)
    example: str = ""

    def knows(self, name: str) -> bool:
        """Whether the graph has this entity; counts those that it has not."""
        if name in self.entities:
            return True
        self.example = self.example or name
        self.outside.add(name)
        return False


def _find_files(graph: Graph, folder: Path) -> Found[str]:
    """``ID.txt``, where characters that no file name can have are percent-encoded, as in URLs."""
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
            one = Input(name, str(path), load, path.stat().st_size)
            inputs.setdefault(name, []).append(one)
    return Found(
        inputs, f"{folder.name} sha256 {digest.hexdigest()}", "",
        index.skipped, len(index.outside), index.example,
    )  # fmt: skip


def _file_text(path: Path) -> str:
    size = path.stat().st_size
    if size > LONGEST:
        raise too_long(size)
    return _usable(text_of(path.read_bytes()))


def _usable(text: str) -> str:
    """A text on one line; without any white space, underscores stand for it (``Jeremy_Irons``).

    Raises:
        Skip: when nothing is left, or JSON has put in what no encoding can write.
    """
    words = text.split()
    if not words:
        raise Skip("the text is empty")
    try:
        text.encode()
    except UnicodeEncodeError:
        raise Skip("holds half a surrogate pair") from None
    return " ".join(words) if len(words) > 1 else words[0].replace("_", " ").strip()


def _find_lines(graph: Graph, path: Path, columns: Sequence[str]) -> Found[str]:
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
                raise too_long(line.length)
            reader.texts(line.raw)
        except Skip as reason:
            index.skipped.append(Skipped(name, f"{path}:{line.number}", str(reason)))
        else:
            index.places.setdefault(name, []).append((line.number, line.start, line.length))
    assert reader is not None  # an empty file was refused
    inputs = {
        name: [
            Input(
                name, f"{path}:{places[0][0]}", functools.partial(_joined, path, reader, places),
                sum(length for _, _, length in places),
            )
        ]
        for name, places in index.places.items()
    }  # fmt: skip
    return Found(
        inputs, lines.source, reader.about, index.skipped, len(index.outside), index.example
    )


def _joined(path: Path, reader: _Table | _Json, places: Sequence[_Place]) -> str:
    """The texts of all lines of an entity, each once."""
    length = sum(length for _, _, length in places)
    if length > LONGEST:
        raise too_long(length)
    found: dict[str, None] = {}
    for _, start, size in places:
        found.update(dict.fromkeys(reader.texts(read_at(path, start, size))))
    return JOINT.join(found)


@dataclass(frozen=True)
class _Table:
    """Fields separated by tabs; quotes are plain characters."""

    path: Path
    header: bool
    width: int
    columns: tuple[int, ...]
    about: str
    # Columns of descriptions: published tables have the word None where there is none. Labels are
    # taken as they are.
    bodies: frozenset[int] = frozenset()

    def entity(self, line: Line) -> str:
        return name_of(line.raw.partition(b"\t")[0])

    def texts(self, raw: bytes) -> list[str]:
        fields = text_of(raw).split("\t")
        if len(fields) != self.width:
            raise Skip(f"{counted(len(fields), 'column')}, expected {self.width}")
        return _texts(
            "" if column in self.bodies and fields[column] == "None" else fields[column]
            for column in self.columns
        )


@dataclass(frozen=True)
class _Json:
    """An object a line."""

    path: Path
    key: str
    keys: tuple[str, ...]
    about: str

    def entity(self, line: Line) -> str:
        if line.length > LONGEST:
            raise too_long(line.length)
        name = _object(line.raw).get(self.key)
        if not isinstance(name, str):
            raise Skip(f"no entity under {self.key!r}")
        return name

    def texts(self, raw: bytes) -> list[str]:
        value = _object(raw)
        found = []
        for key in self.keys:
            part = value.get(key)
            parts = part if isinstance(part, list) else [part]
            for text in parts:
                if text is not None and not isinstance(text, str):
                    raise Skip(f"{key!r} is no text")
                found.append(text or "")
        return _texts(found)


def _object(raw: bytes) -> dict[str, Any]:
    try:
        value = json.loads(text_of(raw))
    except (ValueError, RecursionError) as error:
        reason = error.msg if isinstance(error, json.JSONDecodeError) else "too deep, or too large"
        raise Skip(f"not valid JSON: {reason}") from None
    if not isinstance(value, dict):
        raise Skip("not a JSON object")
    return value


def _texts(parts: Any) -> list[str]:
    found = []
    for part in parts:
        if "\0" in part:
            raise Skip("holds a NUL; is this a text?")
        if part.strip():
            found.append(_usable(part))
    if not found:
        raise Skip("the text is empty")
    return found


def _reader(
    path: Path, first: Line, columns: Sequence[str], entities: frozenset[str]
) -> _Table | _Json:
    """How to read a file, from its first line."""
    if path.suffix == ".jsonl":
        try:
            keys = list(_object(first.raw))
        except Skip as reason:
            raise DataError(f"{path}:{first.number}: {reason}") from None
        key = next((k for k in ("entity", "id") if k in keys), None)
        if key is None:
            raise DataError(
                f"{path}:{first.number}: neither 'entity' nor 'id' among the keys "
                f"{', '.join(map(repr, keys))}"
            )
        texts = tuple(columns) or _columns_of_texts(path, [k for k in keys if k != key])
        return _Json(path, key, texts, f"keys {', '.join(texts)}")
    try:
        fields = text_of(first.raw).split("\t")
    except Skip as reason:
        raise DataError(f"{path}:{first.number}: {reason}") from None
    if len(fields) < 2:
        raise DataError(
            f"{path}:{first.number}: one column, expected an entity and a text, separated by a tab"
        )
    named = any(_TITLE.fullmatch(f) or _BODY.fullmatch(f) for f in fields[1:])
    header = fields[0].strip(" ") not in entities and (named or _any_in(columns, fields))
    if columns:
        chosen = tuple(_numbers(path, first.number, columns, fields, header))
        about = f"columns {', '.join(columns)}"
    elif header:
        names = _columns_of_texts(path, fields[1:])
        chosen = tuple(fields.index(name, 1) for name in names)
        about = f"columns {', '.join(names)}"
    elif len(fields) == 2:
        chosen, about = (1,), ""
    else:
        raise DataError(
            f"{path}:{first.number}: {counted(len(fields), 'column')} and no header with a name "
            "that ends in label, name, title, description or text; say which hold texts, as in "
            "--columns 2,3"
        )
    bodies = frozenset(i for i in chosen if header and _BODY.fullmatch(fields[i]))
    if bodies:
        of = ", ".join(fields[i] for i in sorted(bodies))
        about += f"; the word None in {of} is none"
    return _Table(path, header, len(fields), chosen, about, bodies)


def _any_in(columns: Sequence[str], fields: Sequence[str]) -> bool:
    return any(column in fields[1:] for column in columns)


def _columns_of_texts(path: Path, names: Sequence[str]) -> tuple[str, ...]:
    chosen = [name for kind in (_TITLE, _BODY) for name in names if kind.fullmatch(name)]
    if not chosen:
        raise DataError(
            f"{path}:1: none of {', '.join(map(repr, names))} ends in label, name, title, "
            "description or text; say which hold texts with --columns"
        )
    return tuple(chosen)


def _numbers(
    path: Path, line: int, columns: Sequence[str], fields: Sequence[str], header: bool
) -> list[int]:
    """Columns from names of the header, or numbers from 1, which is the entity."""
    found = []
    for column in columns:
        if header and column in fields[1:]:
            found.append(fields.index(column, 1))
        elif column.isascii() and column.isdigit() and 2 <= int(column) <= len(fields):
            found.append(int(column) - 1)
        else:
            wanted = nearest(column, fields[1:]) if header else "there is no header"
            raise DataError(
                f"{path}:{line}: --columns {column}: no such column ({wanted}); expected a name of "
                f"the header or a number from 2 to {len(fields)}"
            )
    return found
