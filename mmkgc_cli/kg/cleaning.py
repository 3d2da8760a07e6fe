"""Cleaning of graphs: removes duplicates, overlaps between splits, and unseen names."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.splitting import needed_rows, shuffled
from mmkgc_cli.kg.triples import Keys, Triples, contained, first_occurrences
from mmkgc_cli.text import counted

# A valid split below either threshold is too small for selecting the best checkpoint.
FEWEST_VALID = 1000
FEWEST_VALID_SHARE = 0.02
MOVED_SHARE = 0.05


def clean_graph(graph: Graph, seed: int) -> Graph:
    """Drops duplicate rows, valid and test rows that are in train, and valid rows that are in test.

    Rows keep their order. When fewer than max(1,000, 2 % of train) rows are left in valid, 5 % of
    the train rows move there. They are sampled with `seed` among the rows with entities and a
    relation that other train rows contain too. The notes of the provenance record each change.
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
        moved = _rows_to_move(graph.with_splits(train, valid, test), seed)
        notes.append(
            f"valid: {counted(int(moved.sum()), 'row')} moved from train (5 %, seed {seed}), "
            f"in addition to the {len(valid):,} left"
        )
        valid = np.concatenate([valid, train[moved]])
        train = train[~moved]
    return graph.with_splits(train, valid, test).with_notes(*notes)


def _dropped(split: str, n_kept: int, n_rows: int) -> str:
    rows = "duplicate row" if split == "train" else "row"
    reason = "" if split == "train" else " (duplicates, or contained in another split)"
    return f"{split}: {counted(n_rows - n_kept, rows)} dropped{reason}"


def clean_rows(graph: Graph) -> dict[str, NDArray[np.bool_]]:
    """The rows of each split that cleaning keeps, as masks."""
    keys: dict[str, Keys] = {split: graph.keys(split) for split in graph.splits}
    keep = {split: first_occurrences(split_keys) for split, split_keys in keys.items()}
    for split, others in (("test", ["train"]), ("valid", ["train", "test"])):
        for other in others:
            keep[split] &= ~contained(keys[split], keys[other])
    return keep


def _rows_to_move(graph: Graph, seed: int) -> NDArray[np.bool_]:
    """The train rows to move to valid, as a mask; independent of the order of ids and rows."""
    entities, relations = graph.sorted_entities, graph.sorted_relations
    h, r, t = graph.train.T
    by_name = np.lexsort((entities.ranks[t], relations.ranks[r], entities.ranks[h]))
    order = by_name[shuffled(np.arange(len(by_name)), seed)]
    free = order[~needed_rows(graph.train[order])]
    moved = np.zeros(len(graph.train), dtype=bool)
    moved[free[: round(MOVED_SHARE * len(graph.train))]] = True
    return moved


def drop_unseen(graph: Graph) -> Graph:
    """Drops valid and test rows with an entity or a relation that is unseen in train.

    Names that lose their last triple are removed too; names that never had one stay.
    """
    seen_entities, seen_relations = graph.seen()
    kept = {
        split: seen_entities[rows[:, [0, 2]]].all(axis=1) & seen_relations[rows[:, 1]]
        for split, rows in graph.splits.items()
    }
    dropped = {split: int((~rows).sum()) for split, rows in kept.items() if not rows.all()}
    if not dropped:
        return graph
    occurring_before = graph.occurring()
    rest = graph.with_splits(*(rows[kept[split]] for split, rows in graph.splits.items()))
    occurring_after = rest.occurring()
    notes = tuple(
        f"{split}: {counted(count, 'triple')} with an entity or a relation unseen in train dropped"
        for split, count in dropped.items()
    )
    masks = [
        ~before | after for before, after in zip(occurring_before, occurring_after, strict=True)
    ]
    return _select_names(rest, *masks).with_notes(*notes)


def _select_names(graph: Graph, entities: NDArray[np.bool_], relations: NDArray[np.bool_]) -> Graph:
    """The graph with only the masked names; no triple may contain another name."""
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
