"""Readers of the published files that tables of texts and numbers are built from."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.readers.lines import open_source, read_lines
from mmkgc_cli.state.atomic import read_json

FREEBASE = "<http://rdf.freebase.com/ns/"
_SAME_AS = re.compile(r"(/m/\S+) <SameAs> <(\S+)> \.")
_LITERAL = re.compile(r'"(.*)"\^\^<\S+>')

_FIX_FILE = "get the published file again (`mmkgc datasets NAME` prints its address)"

Numbers = Mapping[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class WikidataItem:
    """The Wikidata item of a Freebase entity, with texts as published, including line breaks."""

    qid: str
    label: str
    description: str | None
    aliases: tuple[str, ...]
    wikipedia: str | None  # address of its Wikipedia page


def flat(text: str) -> str:
    """A text for a table cell: each run of white space of any kind becomes one blank."""
    return " ".join(text.split())


def read_items(path: Path) -> dict[str, WikidataItem]:
    """Reads ``entity2wikidata.json``: items by Freebase id.

    Raises:
        DataError: naming the first entity that violates the format.
    """
    return {mid: _item(path, mid, fields) for mid, fields in _read_object(path).items()}


def _item(path: Path, mid: str, fields: Any) -> WikidataItem:
    try:
        item = WikidataItem(
            fields["wikidata_id"],
            fields["label"],
            fields["description"],
            tuple(fields["alternatives"]),
            fields["wikipedia"],
        )
    except (KeyError, TypeError):
        item = None
    texts = () if item is None else (item.qid, item.label, *item.aliases)
    optional = () if item is None else (item.description, item.wikipedia)
    if not texts or not all(isinstance(text, str) for text in texts):
        item = None
    if item is None or not all(text is None or isinstance(text, str) for text in optional):
        raise DataError(
            f"{path}: {mid[:80]!r} is not described by the texts wikidata_id, label, description "
            "and wikipedia and the list alternatives",
            fix=_FIX_FILE,
        )
    return item


def read_types(path: Path) -> dict[str, list[str]]:
    """Reads ``entity2types.json``: lists of Wikidata ids of types by Wikidata id."""
    types_by_qid = _read_object(path)
    for qid, types in types_by_qid.items():
        if not isinstance(types, list) or not all(isinstance(item, str) for item in types):
            raise DataError(
                f"{path}: {qid[:80]!r} has {str(types)[:80]!r}, expected a list of ids",
                fix=_FIX_FILE,
            )
    return types_by_qid


def read_type_texts(path: Path) -> dict[str, tuple[str, str]]:
    """Reads ``types.json``: label and description by Wikidata id."""
    texts: dict[str, tuple[str, str]] = {}
    for qid, fields in _read_object(path).items():
        try:
            label, description = fields["label"], fields["description"]
        except (KeyError, TypeError):
            label = description = None
        if not isinstance(label, str) or not isinstance(description, str):
            raise DataError(
                f"{path}: {qid[:80]!r} has no texts label and description", fix=_FIX_FILE
            )
        texts[qid] = (label, description)
    return texts


def _read_object(path: Path) -> dict[str, Any]:
    open_source(path)
    try:
        content = read_json(path)
        # JSON can escape an unpaired surrogate, which cannot be encoded as UTF-8.
        json.dumps(content, ensure_ascii=False).encode()
    except RecursionError:
        raise DataError(f"{path}: nested too deeply", fix=_FIX_FILE) from None
    except UnicodeEncodeError:
        raise DataError(f"{path}: a text has an unpaired surrogate", fix=_FIX_FILE) from None
    if not isinstance(content, dict):
        raise DataError(
            f"{path}: contains a {type(content).__name__}, expected an object by entity",
            fix=_FIX_FILE,
        )
    return content


def read_same_as(path: Path) -> dict[str, str]:
    """Reads ``mid <SameAs> <address> .`` lines: the last Freebase id of each address."""
    links: dict[str, str] = {}
    for number, text in read_lines(path):
        match = _SAME_AS.fullmatch(text)
        if match is None:
            raise DataError(
                f"{path}:{number}: {text[:80]!r} is not '/m/ID <SameAs> <address> .'",
                fix=_FIX_FILE,
            )
        links[match[2]] = match[1]
    return links


def read_numbers(path: Path) -> Numbers:
    """Reads ``mid<TAB><freebase property><TAB>value`` lines: names and values by Freebase id.

    Names of properties lose their namespace; values remain as written.
    """
    numbers: dict[str, list[tuple[str, str]]] = {}
    for number, (mid, name, value) in _rows(path, 3):
        if not name.startswith(FREEBASE) or not name.endswith(">"):
            raise DataError(f"{path}:{number}: {name[:80]!r} is not '{FREEBASE}…>'", fix=_FIX_FILE)
        numbers.setdefault(mid, []).append((name[len(FREEBASE) : -1], value))
    return numbers


def read_literals(path: Path) -> Numbers:
    """Reads ``id<TAB>property<TAB>"value"^^<type>`` lines: properties and values by Wikidata id."""
    literals: dict[str, list[tuple[str, str]]] = {}
    for number, (qid, name, value) in _rows(path, 3):
        match = _LITERAL.fullmatch(value)
        if match is None:
            raise DataError(
                f"{path}:{number}: {value[:80]!r} is not '\"value\"^^<type>'", fix=_FIX_FILE
            )
        literals.setdefault(qid, []).append((name, match[1]))
    return literals


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Reads ``id<TAB>text`` lines."""
    return [(row[0], row[1]) for _, row in _rows(path, 2)]


def _rows(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    for number, text in read_lines(path):
        row = text.split("\t")
        if len(row) != columns:
            raise DataError(
                f"{path}:{number}: {len(row)} columns, expected {columns}, separated by tabs",
                fix=_FIX_FILE,
            )
        yield number, row
