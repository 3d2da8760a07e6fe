"""Reader of tab-separated triples by name: ``head relation tail`` or ``head tail relation``."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.graph import SPLITS, Graph, Triples
from mmkgc_cli.kg.lines import check_count, parse_count, read_lines
from mmkgc_cli.kg.openke import read_vocabulary

# Where head, relation and tail stand in a row.
ORDERS = {"hrt": (0, 1, 2), "htr": (0, 2, 1)}
_NAMES = {"hrt": "head relation tail", "htr": "head tail relation"}
_SUFFIXES = (".txt", ".tsv")
# First rows that name columns; taken as triples they would add a fact and three names.
_HEADERS = [
    {"head", "relation", "tail"},
    {"subject", "predicate", "object"},
    {"source", "relation", "target"},
    {"h", "r", "t"},
    {"s", "p", "o"},
]
# So many times more relations than tails speak of swapped columns by themselves.
_MANY = 10


class _Vocabulary:
    """Names to ids; grows as names come unless a file has fixed it."""

    def __init__(self, kind: str, path: Path) -> None:
        self.kind = kind
        self.path = path if path.is_file() else None
        names = read_vocabulary(path, kind) if self.path else []
        self.ids = {name: i for i, name in enumerate(names)}

    def id_of(self, name: str, where: str) -> int:
        found = self.ids.get(name)
        if found is None:
            if self.path:
                raise DataError(f"{where}: {self.kind} {name!r} is not in {self.path}")
            found = self.ids[name] = len(self.ids)
        return found


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
    files = _split_files(source)
    entities = _Vocabulary("entity", source / "entity2id.txt")
    relations = _Vocabulary("relation", source / "relation2id.txt")
    train, valid, test = (
        _read_file(files[split], order, entities, relations, trust_order)
        if split in files
        else np.empty((0, 3), dtype=np.int32)
        for split in SPLITS
    )
    graph = Graph(name, list(entities.ids), list(relations.ids), train, valid, test)
    if not trust_order:
        _check_order(graph, files["train"], order)
    return graph


def _split_files(source: Path) -> dict[str, Path]:
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if source.is_file():
        return {"train": source}
    found: dict[str, Path] = {}
    for split in SPLITS:
        matches = [source / (split + suffix) for suffix in _SUFFIXES]
        matches = [path for path in matches if path.is_file()]
        if len(matches) > 1:
            raise DataError(f"{source}: both {matches[0].name} and {matches[1].name} are there")
        if matches:
            found[split] = matches[0]
    if "train" not in found:
        raise DataError(f"{source}: no train.txt or train.tsv; expected train, valid and test")
    if len(found) == 2:
        missing = next(split for split in SPLITS if split not in found)
        raise DataError(f"{source}: no {missing}.txt or {missing}.tsv beside the other two splits")
    return found


def _read_file(
    path: Path, order: str, entities: _Vocabulary, relations: _Vocabulary, trust_order: bool
) -> Triples:
    at_head, at_relation, at_tail = ORDERS[order]
    count: int | None = None
    rows: list[tuple[int, int, int]] = []
    for number, text in read_lines(path):
        if number == 1 and (count := parse_count(text)) is not None:
            continue
        fields = text.split("\t")
        where = f"{path}:{number}"
        if len(fields) != 3:
            advice = "; separate them with tabs" if len(fields) == 1 else ""
            raise DataError(
                f"{where}: {len(fields)} column{'s' * (len(fields) != 1)}, expected 3 separated "
                f"by tabs ({_NAMES[order]}){advice}"
            )
        head, relation, tail = (
            fields[at_head].strip(" "), fields[at_relation].strip(" "), fields[at_tail].strip(" ")
        )  # fmt: skip
        if not (head and relation and tail):
            raise DataError(f"{where}: an empty name, expected {_NAMES[order]}")
        is_header = not rows and {f.strip(" ").casefold() for f in fields} in _HEADERS
        if is_header and not trust_order:
            raise DataError(
                f"{where}: {text!r} names columns, expected a triple; remove the line "
                "(--trust-order takes it as a triple)"
            )
        rows.append(
            (
                entities.id_of(head, where),
                relations.id_of(relation, where),
                entities.id_of(tail, where),
            )
        )
    check_count(path, count, len(rows), "triples")
    if not rows:
        raise DataError(f"{path}: holds no triples")
    return np.array(rows, dtype=np.int32)


def _check_order(graph: Graph, path: Path, order: str) -> None:
    """Refuses an order that the names contradict.

    In a graph read the right way round, tails turn up among heads more readily than relations do,
    and relations are few. Where more relations than tails come out, and the relations turn up
    among heads more than the tails do (or there are ten times as many), the two columns are
    almost certainly swapped.
    """
    rows = np.concatenate(list(graph.splits.values()))
    heads = {graph.entities[i] for i in np.unique(rows[:, 0])}
    tails = {graph.entities[i] for i in np.unique(rows[:, 2])}
    used = {graph.relations[i] for i in np.unique(rows[:, 1])}
    share_of_relations = len(used & heads) / len(used)
    share_of_tails = len(tails & heads) / len(tails)
    among_heads = len(used) > len(tails) and share_of_relations > share_of_tails
    if among_heads or len(used) >= _MANY * len(tails):
        other = "htr" if order == "hrt" else "hrt"
        raise DataError(
            f"{path}:1: read as {_NAMES[order]}, {len(used)} relations but {len(tails)} tails "
            f"come out, and {len(used & heads)} of the relations are also heads; "
            f"is this --format {other}? (--trust-order takes it as it is)"
        )


def require_splits(graph: Graph, source: Path) -> None:
    """Refuses a graph that came as one list of triples when no split was asked for.

    Raises:
        UsageError: naming the option to give.
    """
    if not len(graph.valid) and not len(graph.test):
        raise UsageError(
            f"{source}: one list of triples; say how to split it, for instance --split 0.8,0.1,0.1"
        )
