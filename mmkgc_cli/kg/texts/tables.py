"""The tables of texts and numbers of each benchmark, from published files and a list of entities.

What looks odd is how the tables that results are measured on were made, byte for byte:

- Where several Freebase ids are linked to one address, the last one of the file counts; where
  several have one Wikidata id, the first.
- A description that Wikidata lacks is the word ``None`` in the tables of Freebase ids, and empty in
  that of Wikidata ids.
- Entities keep the graph's order, their numbers that of the file.
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
    """The bytes of a table, how many entities it has rows of, and of how many files said something.

    A table that is a published file as it is counts no entities (None).
    """

    content: bytes
    entities: int | None = None
    found: int | None = None


Builder = Callable[[Files, Sequence[str]], Table]


def _as_published(name: str) -> Builder:
    return lambda files, entities: Table(files[name].read_bytes())


def _table(header: Row, rows: Iterable[tuple[bool, Row]]) -> Table:
    """A table with a header from rows, each with whether a published file said something of it."""
    lines, entities, found = ["\t".join(header)], set(), set()
    for known, row in rows:
        lines.append("\t".join(row))
        entities.add(row[0])
        if known:
            found.add(row[0])
    return Table("".join(f"{line}\n" for line in lines).encode(), len(entities), len(found))


def _freebase_text(files: Files, entities: Sequence[str]) -> Table:
    items = read_items(files[ITEMS])
    header = ("mid", "qid", "label", "description", "aliases")

    def rows() -> Iterator[tuple[bool, Row]]:
        for mid in entities:
            if item := items.get(mid):
                aliases = "|".join(map(flat, item.aliases))
                yield True, (mid, *_described(item), aliases)

    return _table(header, rows())


def _described(item: WikidataItem | None) -> Row:
    """Wikidata id, label and description of an item, or empty cells."""
    if item is None:
        return ("", "", "")
    return (item.qid, flat(item.label), flat(str(item.description)))


def _dbpedia_text(files: Files, entities: Sequence[str]) -> Table:
    items, mids = read_items(files[ITEMS]), read_same_as(files[DBPEDIA_LINKS])
    header = ("uri", "mid", "qid", "uri_label", "wikidata_label", "wikidata_description")

    def rows() -> Iterator[tuple[bool, Row]]:
        for uri in entities:
            mid = mids.get(_address(uri), "")
            qid, label, description = _described(items.get(mid))
            yield bool(mid), (uri, mid, qid, _label_of(uri), label, description)

    return _table(header, rows())


def _address(uri: str) -> str:
    return uri.removeprefix("<").removesuffix(">")


def _label_of(uri: str) -> str:
    """The name at the end of an address, or a name of YAGO, in words; escapes stay as they are."""
    return flat(_address(uri).removeprefix(_DBPEDIA).replace("_", " "))


def _dbpedia_numbers(files: Files, entities: Sequence[str]) -> Table:
    mids = read_same_as(files[DBPEDIA_LINKS])
    of_mid = {uri: mids.get(_address(uri), "") for uri in entities}
    return _numbers_by_mid("uri", of_mid, files)


def _numbers_by_mid(key: str, of_mid: Mapping[str, str], files: Files) -> Table:
    numbers = read_numbers(files[FREEBASE_NUMBERS])
    return _table(
        (key, "mid", "attribute", "value"),
        (
            (True, (entity, mid, name, value))
            for entity, mid in of_mid.items()
            for name, value in numbers.get(mid, ())
        ),
    )


def _yago_links(files: Files, entities: Iterable[str]) -> dict[str, tuple[str, str]]:
    """Freebase id of each entity that has one, and who says so: YAGO, or the title in Wikipedia."""
    same = read_same_as(files[YAGO_LINKS])
    titles = {
        unquote(item.wikipedia.rpartition("/wiki/")[2]): mid
        for mid, item in read_items(files[ITEMS]).items()
        if item.wikipedia is not None
    }
    links: dict[str, tuple[str, str]] = {}
    for entity in entities:
        if mid := same.get(_YAGO + entity):
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
            yield bool(mid), (entity, _label_of(entity), mid, *_described(items.get(mid)), link)

    return _table(header, rows())


def _yago_numbers(files: Files, entities: Sequence[str]) -> Table:
    links = _yago_links(files, entities)
    return _numbers_by_mid("entity", {entity: mid for entity, (mid, _) in links.items()}, files)


def _by_qid(files: Files) -> dict[str, tuple[str, WikidataItem]]:
    """Freebase id and item of each Wikidata id."""
    found: dict[str, tuple[str, WikidataItem]] = {}
    for mid, item in read_items(files[ITEMS]).items():
        found.setdefault(item.qid, (mid, item))
    return found


class _Wikidata:
    """What the published files say of Wikidata ids; of labels, the first source that has one."""

    def __init__(self, files: Files) -> None:
        self._items = {item.qid: item for _, item in _by_qid(files).values()}
        self._labels = dict(read_pairs(files[WIKIDATA_LABELS]))
        self._descriptions = dict(read_pairs(files[WIKIDATA_DESCRIPTIONS]))
        self._type_texts = read_type_texts(files[CODEX_TYPE_TEXTS])
        self._types = {qid: list(types) for qid, types in read_types(files[CODEX_TYPES]).items()}
        for qid, kind in read_pairs(files[WIKIDATA_TYPES]):
            self._types.setdefault(qid, []).append(kind)

    def label(self, qid: str) -> tuple[str, str]:
        """A label, and the source of it; both empty where there is none."""
        if qid in self._items:
            return self._items[qid].label, "fb15k-entity2wikidata"
        if qid in self._labels:
            return self._labels[qid], "LiterallyWikidata"
        if qid in self._type_texts:
            return self._type_texts[qid][0], "CoDEx-types"
        return "", ""

    def description(self, qid: str) -> str:
        item = self._items.get(qid)
        found = (item.description if item else None) or self._descriptions.get(qid)
        return found or self._type_texts.get(qid, ("", ""))[1]

    def types(self, qid: str) -> list[str]:
        return list(dict.fromkeys(self._types.get(qid, ())))

    def type_label(self, qid: str) -> str:
        """As `label`, but CoDEx, which describes types, is asked first, and Freebase last."""
        if qid in self._type_texts:
            return self._type_texts[qid][0]
        item = self._items.get(qid)
        return self._labels.get(qid) or (item.label if item else "")


def _wikidata_text(files: Files, entities: Sequence[str]) -> Table:
    known = _Wikidata(files)
    header = ("entity", "label", "description", "type_qids", "type_labels", "label_source")

    def rows() -> Iterator[tuple[bool, Row]]:
        for entity in entities:
            qid = entity.removeprefix(_WIKIDATA)
            label, source = known.label(qid)
            description, types = known.description(qid), known.types(qid)
            if label or description or types:
                labels = "|".join(filter(None, (flat(known.type_label(t)) for t in types)))
                cells = (flat(label), flat(description), "|".join(types), labels, source)
                yield True, (entity, *cells)

    return _table(header, rows())


def _wikidata_numbers(files: Files, entities: Sequence[str]) -> Table:
    mids = {qid: mid for qid, (mid, _) in _by_qid(files).items()}
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


# By benchmark and name of the table; datasets.toml says which files each is made from.
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
