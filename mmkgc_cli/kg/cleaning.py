"""Removing what should not be there: duplicates, overlaps between splits, unseen names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.splitting import needed_rows, shuffled
from mmkgc_cli.kg.triples import Keys, Triples, contained, first_occurrences
from mmkgc_cli.text import counted

# A valid split below both of these is too small to select on.
FEWEST_VALID = 1000
FEWEST_VALID_SHARE = 0.02
CARVED_SHARE = 0.05


def clean_graph(graph: Graph, seed: int) -> Graph:
    """Drops duplicate rows, from valid and test what is in train, from valid what is in test.

    Rows keep their order. When that leaves fewer than max(1,000, 2 % of train) rows in valid, 5 %
    of train join them, drawn with `seed` among those whose entities and relation train shows
    elsewhere too. What was done is added to the notes of the provenance.
    """
    keep = clean_rows(graph)
    train, valid, test = (rows[keep[split]] for split, rows in graph.splits.items())
    notes = [
        f"{_dropped(split, len(rows), len(graph.splits[split]))}"
        for split, rows in (("train", train), ("valid", valid), ("test", test))
        if len(rows) < len(graph.splits[split])
    ]
    too_few = len(valid) < max(FEWEST_VALID, FEWEST_VALID_SHARE * len(train))
    if too_few and len(valid) < len(graph.valid):
        carved = _carve(graph.with_splits(train, valid, test), seed)
        notes.append(
            f"valid: {counted(int(carved.sum()), 'row')} carved from train (5 %, seed {seed}) "
            f"beside the {len(valid):,} left"
        )
        valid = np.concatenate([valid, train[carved]])
        train = train[~carved]
    return graph.with_splits(train, valid, test).with_notes(*notes)


def _dropped(split: str, left: int, before: int) -> str:
    why = "that stood there twice" if split == "train" else "that another split has, or twice"
    return f"{split}: {counted(before - left, 'row')} dropped {why}"


def clean_rows(graph: Graph) -> dict[str, NDArray[np.bool_]]:
    """Which rows of each split a cleaning would keep."""
    keys: dict[str, Keys] = {split: graph.keys(split) for split in graph.splits}
    keep = {split: first_occurrences(of) for split, of in keys.items()}
    for split, others in (("test", ["train"]), ("valid", ["train", "test"])):
        for other in others:
            keep[split] &= ~contained(keys[split], keys[other])
    return keep


def _carve(graph: Graph, seed: int) -> NDArray[np.bool_]:
    """Which train rows to move to valid: the same triples whatever ids and rows are in order."""
    entities, relations = graph.sorted_entities, graph.sorted_relations
    h, r, t = graph.train.T
    by_name = np.lexsort((entities.ranks[t], relations.ranks[r], entities.ranks[h]))
    order = by_name[shuffled(np.arange(len(by_name)), seed)]
    free = order[~needed_rows(graph.train[order])]
    carved = np.zeros(len(graph.train), dtype=bool)
    carved[free[: round(CARVED_SHARE * len(graph.train))]] = True
    return carved


def drop_unseen(graph: Graph) -> Graph:
    """Drops valid and test rows with an entity or a relation that train lacks.

    Names that then occur nowhere go too; names that never occurred stay.
    """
    seen_entities, seen_relations = graph.seen()
    kept = {
        split: seen_entities[rows[:, [0, 2]]].all(axis=1) & seen_relations[rows[:, 1]]
        for split, rows in graph.splits.items()
    }
    dropped = {split: int((~rows).sum()) for split, rows in kept.items() if not rows.all()}
    if not dropped:
        return graph
    occurred = graph.occurring()
    rest = graph.with_splits(*(rows[kept[split]] for split, rows in graph.splits.items()))
    still = rest.occurring()
    notes = tuple(
        f"{split}: {counted(count, 'triple')} dropped whose entity or relation train lacks"
        for split, count in dropped.items()
    )
    gone = [~before | now for before, now in zip(occurred, still, strict=True)]
    return _only(rest, *gone).with_notes(*notes)


def _only(graph: Graph, entities: NDArray[np.bool_], relations: NDArray[np.bool_]) -> Graph:
    """The graph without the names that are not marked; their triples must be gone already."""
    if entities.all() and relations.all():
        return graph
    new_entity = np.cumsum(entities) - 1
    new_relation = np.cumsum(relations) - 1

    def renumbered(rows: Triples) -> Triples:
        h, r, t = rows.T
        return np.stack([new_entity[h], new_relation[r], new_entity[t]], axis=1).astype(np.int32)

    train, valid, test = (renumbered(rows) for rows in graph.splits.values())
    e, r = np.flatnonzero(entities).tolist(), np.flatnonzero(relations).tolist()
    return Graph(
        graph.name,
        [graph.entities[i] for i in e],
        [graph.relations[i] for i in r],
        train,
        valid,
        test,
        entity_labels=graph.entity_labels and [graph.entity_labels[i] for i in e],
        relation_labels=graph.relation_labels and [graph.relation_labels[i] for i in r],
        provenance=graph.provenance,
    )
