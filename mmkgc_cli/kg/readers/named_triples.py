"""Reader of tab-separated triples by name: ``head relation tail`` or ``head tail relation``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import numpy as np

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import SPLITS, Graph
from mmkgc_cli.kg.readers.fields import Fields, tab_fields
from mmkgc_cli.kg.readers.lines import check_count, parse_count, read_blocks, read_lines
from mmkgc_cli.kg.readers.names import UNKNOWN, HashCollision, NameTable
from mmkgc_cli.kg.readers.openke import read_vocabulary
from mmkgc_cli.kg.readers.splits import split_files
from mmkgc_cli.kg.triples import Triples

# Where head, relation and tail stand in a row.
ORDERS = {"hrt": (0, 1, 2), "htr": (0, 2, 1)}
_NAMES = {"hrt": "head relation tail", "htr": "head tail relation"}
_SUFFIXES = (".txt", ".tsv")
# First rows that name columns; taken as triples they would add a fact and three names.
_HEADERS = (
    {"head", "subject", "source", "src", "from", "h", "s", "entity1", "e1", "head entity"},
    {"relation", "predicate", "property", "rel", "edge", "r", "p"},
    {"tail", "object", "target", "dst", "to", "t", "o", "entity2", "e2", "tail entity"},
)
# So many times more relations than tails speak of swapped columns by themselves.
_MANY = 10
_SALTS = 16


class Vocabulary:
    """Names to ids; grows as names come unless a file has fixed it."""

    def __init__(self, kind: str, path: Path | None, salt: int) -> None:
        self.kind = kind
        self.path = path if path is not None and path.is_file() else None
        self.table = (
            NameTable.of(read_vocabulary(self.path, kind), salt) if self.path else NameTable(salt)
        )


def read_named(source: Path, name: str, order: str, trust_order: bool = False) -> Graph:
    """Reads a file of triples, or a folder with train, valid and test files.

    In a folder, ``entity2id.txt`` and ``relation2id.txt`` fix the vocabulary where they exist;
    otherwise names get ids as they come. A lone file (or a folder with nothing but ``train``)
    gives a graph with empty valid and test, to be split by `kg.splitting`.

    Args:
        source: file or folder.
        name: of the graph.
        order: ``hrt`` or ``htr``.
        trust_order: take columns and first rows as they are, even where the names speak against it.

    Raises:
        DataError: naming file and line.
    """
    files = split_files(source, _SUFFIXES)
    graph = with_salts(source, lambda salt: _read(files, source, name, order, trust_order, salt))
    if not trust_order:
        _check_order(graph, files["train"], order)
    return graph


def with_salts(source: Path, read: Callable[[int], Graph]) -> Graph:
    """Reads with one hash after another until no two names collide, which is nearly always once."""
    for salt in range(_SALTS):
        try:
            return read(salt)
        except HashCollision:
            continue
    raise DataError(f"{source}: names collide under every hash; please report it")


def _read(
    files: dict[str, Path], source: Path, name: str, order: str, trust_order: bool, salt: int
) -> Graph:
    entities = Vocabulary("entity", source / "entity2id.txt", salt)
    relations = Vocabulary("relation", source / "relation2id.txt", salt)
    train, valid, test = (
        _read_file(files[split], order, entities, relations, trust_order)
        if split in files
        else np.empty((0, 3), dtype=np.int32)
        for split in SPLITS
    )
    return Graph(name, entities.table.names(), relations.table.names(), train, valid, test)


def _read_file(
    path: Path, order: str, entities: Vocabulary, relations: Vocabulary, trust_order: bool
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
        raise DataError(f"{path}: holds no triples")
    return rows


def decode_rows(
    path: Path,
    fields: Fields,
    order: tuple[int, int, int],
    entities: Vocabulary,
    relations: Vocabulary,
) -> Triples:
    """Rows of names as ids ``[n, 3]``, head relation tail; `order` says where each stands.

    Raises:
        DataError: for the first name that a vocabulary file lacks.
    """
    at_head, at_relation, at_tail = order
    ends = [at_head, at_tail]
    rows = np.empty((len(fields.lines), 3), dtype=np.int64)
    rows[:, [0, 2]] = entities.table.ids(
        fields.data, fields.starts[:, ends].ravel(), fields.ends[:, ends].ravel(),
        grow=entities.path is None,
    ).reshape(-1, 2)  # fmt: skip
    rows[:, 1] = relations.table.ids(
        fields.data, fields.starts[:, at_relation], fields.ends[:, at_relation],
        grow=relations.path is None,
    )  # fmt: skip
    unknown = rows == UNKNOWN
    if unknown.any():
        at = int(np.flatnonzero(unknown.any(axis=1))[0])
        column = int(np.flatnonzero(unknown[at])[0])
        vocabulary = relations if column == 1 else entities
        place = order[column]
        name = fields.data[fields.starts[at, place] : fields.ends[at, place]].tobytes().decode()
        raise DataError(
            f"{path}:{fields.lines[at]}: {vocabulary.kind} {name!r} is not in {vocabulary.path}"
        )
    return rows.astype(np.int32)


def _refuse_header(path: Path, fields: Fields) -> None:
    names = fields.first()
    words = {name.casefold().strip("#_ ") for name in names}
    if len(words) == 3 and all(words & column for column in _HEADERS):
        raise DataError(
            f"{path}:{fields.lines[0]}: {chr(9).join(names)!r} names columns, expected a triple; "
            "remove the line (--trust-order takes it as a triple)"
        )


def _report_bad_row(path: Path, order: str) -> NoReturn:
    """Finds the first bad line the slow way, now that there is one."""
    for number, text in read_lines(path):
        if number == 1 and parse_count(text) is not None:
            continue
        fields = text.split("\t")
        where = f"{path}:{number}"
        if len(fields) != 3:
            advice = "; separate them with tabs" if len(fields) == 1 else ""
            raise DataError(
                f"{where}: {len(fields)} column{'s' * (len(fields) != 1)}, expected 3 separated "
                f"by tabs ({_NAMES[order]}){advice}"
            )
        if not all(field.strip(" ") for field in fields):
            raise DataError(f"{where}: an empty name, expected {_NAMES[order]}")
    raise DataError(f"{path}: not rows of {_NAMES[order]}, separated by tabs")


def _check_order(graph: Graph, path: Path, order: str) -> None:
    """Refuses an order that the names contradict.

    In a graph read the right way round, tails turn up among heads more readily than relations do,
    and relations are few. Where more relations than tails come out, and the relations turn up
    among heads more than the tails do (or there are ten times as many), the two columns are
    almost certainly swapped.
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
    if shared / n_used > int((is_tail & is_head).sum()) / n_tails or n_used >= _MANY * n_tails:
        other = "htr" if order == "hrt" else "hrt"
        raise DataError(
            f"{path}:1: read as {_NAMES[order]}, {n_used} relations but {n_tails} tails "
            f"come out, and {shared} of the relations are also heads; "
            f"is this --format {other}? (--trust-order takes it as it is)"
        )
