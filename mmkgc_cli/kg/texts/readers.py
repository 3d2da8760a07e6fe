"""Reading the published files that tables of texts and numbers are made from."""

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

Numbers = Mapping[str, list[tuple[str, str]]]


@dataclass(frozen=True)
class WikidataItem:
    """What Wikidata says of a Freebase entity. Texts are as published, line breaks included."""

    qid: str
    label: str
    description: str | None
    aliases: tuple[str, ...]
    wikipedia: str | None  # address of its page


def flat(text: str) -> str:
    """A text for a cell of a table: runs of white space, of any kind, become one blank."""
    return " ".join(text.split())


def read_items(path: Path) -> dict[str, WikidataItem]:
    """Reads ``entity2wikidata.json``, items by Freebase id.

    Raises:
        DataError: naming the entity that is not as the format says.
    """
    return {mid: _item(path, mid, fields) for mid, fields in _object(path).items()}


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
            f"{path}: {mid[:80]!r} is not described by texts wikidata_id, label, description and "
            "wikipedia and a list alternatives"
        )
    return item


def read_types(path: Path) -> dict[str, list[str]]:
    """Reads ``entity2types.json``, lists of Wikidata ids by Wikidata id."""
    found = _object(path)
    for qid, types in found.items():
        if not isinstance(types, list) or not all(isinstance(each, str) for each in types):
            raise DataError(f"{path}: {qid[:80]!r} has {str(types)[:80]!r}, expected a list of ids")
    return found


def read_type_texts(path: Path) -> dict[str, tuple[str, str]]:
    """Reads ``types.json``, label and description by Wikidata id."""
    texts: dict[str, tuple[str, str]] = {}
    for qid, fields in _object(path).items():
        try:
            label, description = fields["label"], fields["description"]
        except (KeyError, TypeError):
            label = description = None
        if not isinstance(label, str) or not isinstance(description, str):
            raise DataError(f"{path}: {qid[:80]!r} has no texts label and description")
        texts[qid] = (label, description)
    return texts


def _object(path: Path) -> dict[str, Any]:
    open_source(path)
    try:
        found = read_json(path)
        # JSON can escape half a surrogate pair, which no table could be written with.
        json.dumps(found, ensure_ascii=False).encode()
    except RecursionError:
        raise DataError(f"{path}: nested too deeply to be what it should be") from None
    except UnicodeEncodeError:
        raise DataError(f"{path}: a text holds half a surrogate pair; is it damaged?") from None
    if not isinstance(found, dict):
        raise DataError(f"{path}: holds {type(found).__name__}, expected an object by entity")
    return found


def read_same_as(path: Path) -> dict[str, str]:
    """Reads ``mid <SameAs> <address> .`` lines: Freebase ids by address, the last one given."""
    links: dict[str, str] = {}
    for number, text in read_lines(path):
        found = _SAME_AS.fullmatch(text)
        if found is None:
            raise DataError(f"{path}:{number}: {text[:80]!r} is not '/m/ID <SameAs> <address> .'")
        links[found[2]] = found[1]
    return links


def read_numbers(path: Path) -> Numbers:
    """Reads ``mid<TAB><freebase property><TAB>value`` lines: properties, bare, and values by mid.

    Values stay as they are written.
    """
    numbers: dict[str, list[tuple[str, str]]] = {}
    for number, (mid, name, value) in _rows(path, 3):
        if not name.startswith(FREEBASE) or not name.endswith(">"):
            raise DataError(f"{path}:{number}: {name[:80]!r} is not '{FREEBASE}…>'")
        numbers.setdefault(mid, []).append((name[len(FREEBASE) : -1], value))
    return numbers


def read_literals(path: Path) -> Numbers:
    """Reads ``id<TAB>property<TAB>"value"^^<type>`` lines: properties and values by Wikidata id."""
    literals: dict[str, list[tuple[str, str]]] = {}
    for number, (qid, name, value) in _rows(path, 3):
        found = _LITERAL.fullmatch(value)
        if found is None:
            raise DataError(f"{path}:{number}: {value[:80]!r} is not '\"value\"^^<type>'")
        literals.setdefault(qid, []).append((name, found[1]))
    return literals


def read_pairs(path: Path) -> list[tuple[str, str]]:
    """Reads ``id<TAB>text`` lines."""
    return [(row[0], row[1]) for _, row in _rows(path, 2)]


def _rows(path: Path, columns: int) -> Iterator[tuple[int, list[str]]]:
    for number, text in read_lines(path):
        row = text.split("\t")
        if len(row) != columns:
            raise DataError(
                f"{path}:{number}: {len(row)} columns, expected {columns}, separated by tabs"
            )
        yield number, row
