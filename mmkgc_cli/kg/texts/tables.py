"""Builders of the tables of texts and numbers of each benchmark.

The tables reproduce byte for byte those used in published results, including their peculiarities:

- When several Freebase ids are linked to one address, the last one in the file counts; when several
  have the same Wikidata id, the first.
- A missing description in Wikidata is the word ``None`` in the tables by Freebase id, and empty in
  the table by Wikidata id.
- Entities follow the order of the graph, and their numbers the order of the file.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import unquote

from mmkgc_cli.kg.texts.readers import (
    WikidataItem,
    flat,
    read_items,
    read_literals,
    read_numbers,
    read_pairs,
    read_same_as,
    read_type_texts,
    read_types,
)

ITEMS = "fb15k-237_entity2wikidata.json"
FREEBASE_NUMBERS = "FB15K_NumericalTriples.txt"
NAMES = "FB15k_mid2name.txt"
DBPEDIA_LINKS = "DB15K_SameAsLink.txt"
YAGO_LINKS = "YAGO15K_SameAsLink.txt"
WIKIDATA_LABELS = "literallywikidata_entity_labels_en.txt"
WIKIDATA_DESCRIPTIONS = "literallywikidata_entity_descriptions_en.txt"
WIKIDATA_TYPES = "literallywikidata_entity_types.txt"
WIKIDATA_NUMBERS = "LitWD1K_numeric_literals.txt"
CODEX_TYPES = "codex_entity2types.json"
CODEX_TYPE_TEXTS = "codex_types_en.json"

_DBPEDIA = "http://dbpedia.org/resource/"
_YAGO = "http://yago-knowledge.org/resource/"
_WIKIDATA = "http://www.wikidata.org/entity/"

Files = Mapping[str, Path]
Row = Sequence[str]


@dataclass(frozen=True)
class Table:
    """The bytes of a table, and the numbers of entities with rows and of described entities.

    The numbers are None for an unchanged published file.
    """

    content: bytes
    entities: int | None = None
    described: int | None = None  # entities that a published file describes


Builder = Callable[[Files, Sequence[str]], Table]


def _as_published(name: str) -> Builder:
    return lambda files, entities: Table(files[name].read_bytes())


def _table(header: Row, rows: Iterable[tuple[bool, Row]]) -> Table:
    """A table of a header and rows, each with a flag: a published file describes its entity."""
    lines, entities, described = ["\t".join(header)], set(), set()
    for is_described, row in rows:
        lines.append("\t".join(row))
        entities.add(row[0])
        if is_described:
            described.add(row[0])
    return Table("".join(f"{line}\n" for line in lines).encode(), len(entities), len(described))


def _freebase_text(files: Files, entities: Sequence[str]) -> Table:
    items = read_items(files[ITEMS])
    header = ("mid", "qid", "label", "description", "aliases")

    def rows() -> Iterator[tuple[bool, Row]]:
        for mid in entities:
            if item := items.get(mid):
                aliases = "|".join(map(flat, item.aliases))
                yield True, (mid, *_item_cells(item), aliases)

    return _table(header, rows())


def _item_cells(item: WikidataItem | None) -> Row:
    """The Wikidata id, label and description of an item, or empty cells."""
    if item is None:
        return ("", "", "")
    return (item.qid, flat(item.label), flat(str(item.description)))


def _dbpedia_text(files: Files, entities: Sequence[str]) -> Table:
    items, mids = read_items(files[ITEMS]), read_same_as(files[DBPEDIA_LINKS])
    header = ("uri", "mid", "qid", "uri_label", "wikidata_label", "wikidata_description")

    def rows() -> Iterator[tuple[bool, Row]]:
        for uri in entities:
            mid = mids.get(_address(uri), "")
            qid, label, description = _item_cells(items.get(mid))
            yield bool(mid), (uri, mid, qid, _label_of(uri), label, description)

    return _table(header, rows())


def _address(uri: str) -> str:
    return uri.removeprefix("<").removesuffix(">")


def _label_of(uri: str) -> str:
    """The last part of an address, or a YAGO name, with blanks for "_"; escapes remain."""
    return flat(_address(uri).removeprefix(_DBPEDIA).replace("_", " "))


def _dbpedia_numbers(files: Files, entities: Sequence[str]) -> Table:
    mids = read_same_as(files[DBPEDIA_LINKS])
    mid_by_uri = {uri: mids.get(_address(uri), "") for uri in entities}
    return _numbers_by_mid("uri", mid_by_uri, files)


def _numbers_by_mid(key: str, mid_by_entity: Mapping[str, str], files: Files) -> Table:
    numbers = read_numbers(files[FREEBASE_NUMBERS])
    return _table(
        (key, "mid", "attribute", "value"),
        (
            (True, (entity, mid, name, value))
            for entity, mid in mid_by_entity.items()
            for name, value in numbers.get(mid, ())
        ),
    )


def _yago_links(files: Files, entities: Iterable[str]) -> dict[str, tuple[str, str]]:
    """The Freebase id of each linked entity, and the source: YAGO, or a title of Wikipedia."""
    yago_links = read_same_as(files[YAGO_LINKS])
    titles = {
        unquote(item.wikipedia.rpartition("/wiki/")[2]): mid
        for mid, item in read_items(files[ITEMS]).items()
        if item.wikipedia is not None
    }
    links: dict[str, tuple[str, str]] = {}
    for entity in entities:
        if mid := yago_links.get(_YAGO + entity):
            links[entity] = (mid, "yago15k-sameas")
        elif mid := titles.get(entity):
            links[entity] = (mid, "wikipedia-title")
    return links


def _yago_text(files: Files, entities: Sequence[str]) -> Table:
    items, links = read_items(files[ITEMS]), _yago_links(files, entities)
    header = (
        "entity", "name_label", "mid", "qid", "wikidata_label", "wikidata_description", "link",
    )  # fmt: skip

    def rows() -> Iterator[tuple[bool, Row]]:
        for entity in entities:
            mid, link = links.get(entity, ("", ""))
            yield bool(mid), (entity, _label_of(entity), mid, *_item_cells(items.get(mid)), link)

    return _table(header, rows())


def _yago_numbers(files: Files, entities: Sequence[str]) -> Table:
    links = _yago_links(files, entities)
    return _numbers_by_mid("entity", {entity: mid for entity, (mid, _) in links.items()}, files)


def _items_by_qid(files: Files) -> dict[str, tuple[str, WikidataItem]]:
    """The first Freebase id and the item of each Wikidata id."""
    items: dict[str, tuple[str, WikidataItem]] = {}
    for mid, item in read_items(files[ITEMS]).items():
        items.setdefault(item.qid, (mid, item))
    return items


class _Wikidata:
    """Labels, descriptions and types by Wikidata id, from several published files."""

    def __init__(self, files: Files) -> None:
        self._items = {item.qid: item for _, item in _items_by_qid(files).values()}
        self._labels = dict(read_pairs(files[WIKIDATA_LABELS]))
        self._descriptions = dict(read_pairs(files[WIKIDATA_DESCRIPTIONS]))
        self._type_texts = read_type_texts(files[CODEX_TYPE_TEXTS])
        self._types = {qid: list(types) for qid, types in read_types(files[CODEX_TYPES]).items()}
        for qid, type_qid in read_pairs(files[WIKIDATA_TYPES]):
            self._types.setdefault(qid, []).append(type_qid)

    def label(self, qid: str) -> tuple[str, str]:
        """The label in the first source that has one, and the source; both empty without one."""
        if qid in self._items:
            return self._items[qid].label, "fb15k-entity2wikidata"
        if qid in self._labels:
            return self._labels[qid], "LiterallyWikidata"
        if qid in self._type_texts:
            return self._type_texts[qid][0], "CoDEx-types"
        return "", ""

    def description(self, qid: str) -> str:
        item = self._items.get(qid)
        description = (item.description if item else None) or self._descriptions.get(qid)
        return description or self._type_texts.get(qid, ("", ""))[1]

    def types(self, qid: str) -> list[str]:
        return list(dict.fromkeys(self._types.get(qid, ())))

    def type_label(self, qid: str) -> str:
        """As `label`, but CoDEx, which describes types, comes first and Freebase last."""
        if qid in self._type_texts:
            return self._type_texts[qid][0]
        item = self._items.get(qid)
        return self._labels.get(qid) or (item.label if item else "")


def _wikidata_text(files: Files, entities: Sequence[str]) -> Table:
    wikidata = _Wikidata(files)
    header = ("entity", "label", "description", "type_qids", "type_labels", "label_source")

    def rows() -> Iterator[tuple[bool, Row]]:
        for entity in entities:
            qid = entity.removeprefix(_WIKIDATA)
            label, source = wikidata.label(qid)
            description, types = wikidata.description(qid), wikidata.types(qid)
            if label or description or types:
                labels = "|".join(filter(None, (flat(wikidata.type_label(t)) for t in types)))
                cells = (flat(label), flat(description), "|".join(types), labels, source)
                yield True, (entity, *cells)

    return _table(header, rows())


def _wikidata_numbers(files: Files, entities: Sequence[str]) -> Table:
    mids = {qid: mid for qid, (mid, _) in _items_by_qid(files).items()}
    freebase = read_numbers(files[FREEBASE_NUMBERS])
    wikidata = read_literals(files[WIKIDATA_NUMBERS])

    def rows() -> Iterator[tuple[bool, Row]]:
        for entity in entities:
            qid = entity.removeprefix(_WIKIDATA)
            for name, value in freebase.get(mids.get(qid, ""), ()):
                yield True, (entity, f"freebase:{name}", value)
            for name, value in wikidata.get(qid, ()):
                yield True, (entity, f"wikidata:{name}", value)

    return _table(("entity", "attribute", "value"), rows())


# Builders by benchmark and table; datasets.toml lists the published files of each table.
BUILDERS: dict[str, dict[str, Builder]] = {
    "fb15k-237": {
        "entity_text.tsv": _freebase_text,
        "mid2name.txt": _as_published(NAMES),
        "numeric.txt": _as_published(FREEBASE_NUMBERS),
    },
    "db15k": {"entity_text.tsv": _dbpedia_text, "numeric.tsv": _dbpedia_numbers},
    "mkg-w": {"entity_text.tsv": _wikidata_text, "numeric.tsv": _wikidata_numbers},
    "mkg-y": {"entity_text.tsv": _yago_text, "numeric.tsv": _yago_numbers},
}
