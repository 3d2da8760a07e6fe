"""Reader of tab-separated triples by name: ``head relation tail`` or ``head tail relation``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import SPLITS, Graph
from mmkgc_cli.kg.readers.fields import Fields, tab_fields
from mmkgc_cli.kg.readers.lines import (
    FIX_EMPTY,
    FIX_LINE,
    check_count,
    parse_count,
    read_blocks,
    read_lines,
)
from mmkgc_cli.kg.readers.names import UNKNOWN, HashCollision, NameTable
from mmkgc_cli.kg.readers.openke import read_vocabulary
from mmkgc_cli.kg.readers.splits import split_files
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.text import counted

# Columns of head, relation and tail.
ORDERS = {"hrt": (0, 1, 2), "htr": (0, 2, 1)}
_COLUMNS = {"hrt": "head relation tail", "htr": "head tail relation"}
_SUFFIXES = (".txt", ".tsv")
# Words of header rows, which must not become triples.
_HEADERS = (
    {"head", "subject", "source", "src", "from", "h", "s", "entity1", "e1", "head entity"},
    {"relation", "predicate", "property", "rel", "edge", "r", "p"},
    {"tail", "object", "target", "dst", "to", "t", "o", "entity2", "e2", "tail entity"},
)
# With so many times more relations than tails, the columns are swapped.
_SWAPPED_RATIO = 10
_SALTS = 16


class Vocabulary:
    """Ids by name: fixed by the file `path` when it exists, and growing otherwise.

    Args:
        noun: "entity" or "relation", for messages.
        path: a vocabulary file.
        salt: salt of the hash of `NameTable`.
    """

    def __init__(self, noun: str, path: Path | None, salt: int) -> None:
        self.noun = noun
        self.path = path if path is not None and path.is_file() else None
        self.table = (
            NameTable.from_names(read_vocabulary(self.path, noun), salt)
            if self.path
            else NameTable(salt)
        )


def read_named(source: Path, name: str, order: str, *, trust_order: bool = False) -> Graph:
    """Reads a file of triples, or a folder with train, valid and test files.

    The files ``entity2id.txt`` and ``relation2id.txt`` of a folder, when present, fix the
    vocabulary; otherwise names get ids in the order of their first occurrence. A single file, or a
    folder with ``train`` only, gives a graph with empty valid and test splits, for `kg.splitting`.

    Args:
        source: file or folder.
        name: name of the graph.
        order: ``hrt`` or ``htr``.
        trust_order: skip the checks for swapped columns and for a header.

    Raises:
        DataError: with file and line.
    """
    files = split_files(source, _SUFFIXES)
    graph = with_salts(
        source,
        lambda salt: _read(files, source, name, order, trust_order=trust_order, salt=salt),
    )
    if not trust_order:
        _check_order(graph, files["train"], order)
    return graph


def with_salts(source: Path, read: Callable[[int], Graph]) -> Graph:
    """Calls `read` with one salt after another until no hashes collide, nearly always once."""
    for salt in range(_SALTS):
        try:
            return read(salt)
        except HashCollision:
            continue
    raise DataError(
        f"{source}: names collide under every hash",
        fix="report this as a bug of mmkgc, with the file",
    )


def _read(
    files: dict[str, Path], source: Path, name: str, order: str, *, trust_order: bool, salt: int
) -> Graph:
    entities = Vocabulary("entity", source / "entity2id.txt", salt)
    relations = Vocabulary("relation", source / "relation2id.txt", salt)
    train, valid, test = (
        _read_file(files[split], order, entities, relations, trust_order=trust_order)
        if split in files
        else np.empty((0, 3), dtype=np.int32)
        for split in SPLITS
    )
    return Graph(name, entities.table.names(), relations.table.names(), train, valid, test)


def _read_file(
    path: Path, order: str, entities: Vocabulary, relations: Vocabulary, *, trust_order: bool
) -> Triples:
    count, blocks = read_blocks(path)
    parts: list[Triples] = []
    for number, block in blocks:
        fields = tab_fields(block, number, 3)
        if fields is None:
            _report_bad_row(path, order)
        if not len(fields.lines):
            continue
        if not parts and not trust_order:
            _refuse_header(path, fields)
        parts.append(decode_rows(path, fields, ORDERS[order], entities, relations))
    rows = np.concatenate(parts) if parts else np.empty((0, 3), dtype=np.int32)
    check_count(path, count, len(rows), "triples")
    if not len(rows):
        raise DataError(f"{path}: contains no triples", fix=FIX_EMPTY)
    return rows


def decode_rows(
    path: Path,
    fields: Fields,
    order: tuple[int, int, int],
    entities: Vocabulary,
    relations: Vocabulary,
) -> Triples:
    """Converts rows of names to ids ``[n, 3]``: head, relation, tail.

    `order` gives the columns of head, relation and tail in the fields.

    Raises:
        DataError: for the first name that is not in a vocabulary file.
    """
    head_column, relation_column, tail_column = order
    entity_columns = [head_column, tail_column]
    rows = np.empty((len(fields.lines), 3), dtype=np.int64)
    rows[:, [0, 2]] = entities.table.ids(
        fields.data,
        fields.starts[:, entity_columns].ravel(),
        fields.ends[:, entity_columns].ravel(),
        grow=entities.path is None,
    ).reshape(-1, 2)
    rows[:, 1] = relations.table.ids(
        fields.data,
        fields.starts[:, relation_column],
        fields.ends[:, relation_column],
        grow=relations.path is None,
    )
    unknown = rows == UNKNOWN
    if unknown.any():
        row = int(np.flatnonzero(unknown.any(axis=1))[0])
        part = int(np.flatnonzero(unknown[row])[0])
        vocabulary = relations if part == 1 else entities
        column = order[part]
        name = fields.data[fields.starts[row, column] : fields.ends[row, column]].tobytes().decode()
        raise DataError(
            f"{path}:{fields.lines[row]}: {vocabulary.noun} {name!r} is not in {vocabulary.path}",
            fix="add it to that file, or remove the file to number the names automatically",
        )
    return rows.astype(np.int32)


def _refuse_header(path: Path, fields: Fields) -> None:
    names = fields.first()
    words = {name.casefold().strip("#_ ") for name in names}
    if len(words) == 3 and all(words & column for column in _HEADERS):
        raise DataError(
            f"{path}:{fields.lines[0]}: {chr(9).join(names)!r} is a header, expected a triple",
            fix="remove the line, or pass --trust-order if it is a triple",
        )


def _report_bad_row(path: Path, order: str) -> NoReturn:
    """Reads line by line to report the first bad one."""
    for number, text in read_lines(path):
        if number == 1 and parse_count(text) is not None:
            continue
        fields = text.split("\t")
        if len(fields) != 3:
            raise DataError(
                f"{path}:{number}: {counted(len(fields), 'column')}, expected 3 separated by tabs "
                f"({_COLUMNS[order]})",
                fix=f"separate the columns with tabs, or {FIX_LINE}"
                if len(fields) == 1
                else FIX_LINE,
            )
        if not all(field.strip(" ") for field in fields):
            raise DataError(
                f"{path}:{number}: an empty name, expected {_COLUMNS[order]}", fix=FIX_LINE
            )
    raise DataError(f"{path}: not rows of {_COLUMNS[order]}, separated by tabs", fix=FIX_LINE)


def _check_order(graph: Graph, path: Path, order: str) -> None:
    """Refuses an order of columns that is almost certainly wrong.

    With the right order, relations are few, and tails occur as heads more often than relations do.
    The order is refused when there are more relations than tails, and a larger share of relations
    than of tails also occurs as heads, or relations are ten times as many as tails.
    """
    n = len(graph.entities)
    is_head, is_tail = np.zeros(n, dtype=bool), np.zeros(n, dtype=bool)
    used = np.zeros(len(graph.relations), dtype=bool)
    for rows in graph.splits.values():
        is_head[rows[:, 0]] = is_tail[rows[:, 2]] = True
        used[rows[:, 1]] = True
    n_used, n_tails = int(used.sum()), int(is_tail.sum())
    if n_used <= n_tails:
        return
    relations = {graph.relations[i] for i in np.flatnonzero(used).tolist()}
    shared = sum(graph.entities[i] in relations for i in np.flatnonzero(is_head).tolist())
    if (
        shared / n_used > int((is_tail & is_head).sum()) / n_tails
        or n_used >= _SWAPPED_RATIO * n_tails
    ):
        other_order = "htr" if order == "hrt" else "hrt"
        raise DataError(
            f"{path}:1: as {_COLUMNS[order]}, the file has {n_used} relations but {n_tails} tails, "
            f"and {shared} of the relations are also heads",
            fix=f"is this --format {other_order}? If not, pass --trust-order",
        )
