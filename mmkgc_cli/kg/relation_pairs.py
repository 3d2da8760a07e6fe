"""Symmetric, inverse and equivalent relations: what lets a test triple be read off a train triple.

As Akrami et al. (2020, "Realistic re-evaluation of knowledge graph completion methods") define
them: two relations are inverse when most pairs of each stand, turned round, in the other;
equivalent when they stand there as they are. A relation is symmetric when it is inverse to itself.
Shares are taken over the distinct triples of all splits, so that how a graph was split does not
matter.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.triples import Keys, Triples, contained, distinct_keys, rows_of_keys, triple_keys

SHARE = 0.8
FEWEST = 10  # pairs that must be shared: three triples make no pattern
# Joined pairs looked at in all, and at once. More than this needs thousands of relations a pair.
BUDGET = 500_000_000
_PART = 4_000_000

Kind = Literal["symmetric", "inverse", "equivalent"]


@dataclass(frozen=True)
class RelationPair:
    """Two relations that say the same, turned round or not.

    `share` is how much of the first stands in the second, `share_back` of the second in the first.
    """

    kind: Kind
    first: int
    second: int
    share: float
    share_back: float
    triples: int  # shared pairs of entities

    @property
    def turned(self) -> bool:
        """Whether head and tail change places."""
        return self.kind != "equivalent"


def relation_pairs(graph: Graph) -> list[RelationPair] | None:
    """All pairs of relations at or above `SHARE` both ways, the largest first.

    None where the graph has so many relations between the same entities that comparing them would
    take more than `BUDGET` steps.
    """
    n, n_relations = len(graph.entities), len(graph.relations)
    keys = distinct_keys(np.concatenate([graph.keys(split) for split in graph.splits]))
    rows = rows_of_keys(keys, n, n_relations)
    proper = rows[rows[:, 0] != rows[:, 2]]  # a loop is its own inverse and says nothing
    sizes = np.bincount(proper[:, 1], minlength=n_relations)
    there = _by_pair(proper[:, 0], proper[:, 2], proper[:, 1], n)
    back = _by_pair(proper[:, 2], proper[:, 0], proper[:, 1], n)
    pairs: list[RelationPair] = []
    for turned, wanted in ((True, back), (False, there)):
        counts = _shared(there, wanted, n_relations)
        if counts is None:
            return None
        pairs += _above(counts, sizes, turned)
    return sorted(pairs, key=lambda pair: (-pair.triples, pair.first, pair.second))


_Column = NDArray[np.int32]


def _by_pair(first: _Column, second: _Column, relations: _Column, n: int) -> tuple[Keys, _Column]:
    """Pairs of entities as numbers, ascending, with the relation of each."""
    keys = first.astype(np.int64) * n + second
    order = np.argsort(keys)
    return keys[order], relations[order]


def _shared(
    there: tuple[Keys, _Column], wanted: tuple[Keys, _Column], n_relations: int
) -> dict[tuple[int, int], int] | None:
    """How many wanted pairs of each relation stand under each other one."""
    keys, relations = there
    # Ascending on both sides, so that the search walks through memory once.
    start = np.searchsorted(keys, wanted[0], side="left")
    lengths = np.searchsorted(keys, wanted[0], side="right") - start
    if lengths.sum() > BUDGET:
        return None
    hit = lengths > 0
    start, lengths, asking = start[hit], lengths[hit], wanted[1][hit].astype(np.int64)
    counts: dict[tuple[int, int], int] = {}
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    first = 0
    while first < len(asking):
        last = int(np.searchsorted(bounds, bounds[first] + _PART, side="right")) - 1
        last = max(last, first + 1)
        part = lengths[first:last]
        # Ranges start..start + length laid end to end.
        at = np.arange(part.sum()) + np.repeat(
            start[first:last] - (bounds[first:last] - bounds[first]), part
        )
        codes = np.repeat(asking[first:last] * n_relations, part) + relations[at]
        values, found = np.unique(codes, return_counts=True)
        for code, count in zip(values.tolist(), found.tolist(), strict=True):
            pair = divmod(code, n_relations)
            counts[pair] = counts.get(pair, 0) + count
        first = last
    return counts


def _above(
    counts: dict[tuple[int, int], int], sizes: NDArray[np.int64], turned: bool
) -> list[RelationPair]:
    pairs = []
    for (first, second), count in counts.items():
        share, share_back = count / sizes[first], count / sizes[second]
        same = first == second
        if first > second or (same and not turned) or count < FEWEST:
            continue
        if min(share, share_back) >= SHARE:
            kind: Kind = "symmetric" if same else "inverse" if turned else "equivalent"
            pairs.append(RelationPair(kind, first, second, float(share), float(share_back), count))
    return pairs


def counterparts(pairs: list[RelationPair]) -> dict[int, list[tuple[int, bool]]]:
    """For each relation, the relations that its triples can be read off, and whether turned."""
    sources: dict[int, list[tuple[int, bool]]] = {}
    for pair in pairs:
        sources.setdefault(pair.first, []).append((pair.second, pair.turned))
        if pair.first != pair.second:
            sources.setdefault(pair.second, []).append((pair.first, pair.turned))
    return sources


def answered(
    graph: Graph, rows: Triples, pairs: list[RelationPair], train: Keys
) -> NDArray[np.bool_]:
    """Which rows ``[n, 3]`` have a counterpart, by one of `pairs`, among the train triples.

    `train` holds the distinct keys of train, ascending.
    """
    hit = np.zeros(len(rows), dtype=bool)
    size = len(graph.entities), len(graph.relations)
    sources = counterparts(pairs)
    for relation in np.unique(rows[:, 1]).tolist():
        at = np.flatnonzero(rows[:, 1] == relation)
        for other, turned in sources.get(relation, ()):
            columns = [2, 1, 0] if turned else [0, 1, 2]
            looked_for = rows[at][:, columns].copy()
            looked_for[:, 1] = other
            hit[at] |= _among(triple_keys(looked_for, *size), train)
    return hit


def reversed_in_train(graph: Graph, rows: Triples) -> NDArray[np.bool_]:
    """Which rows have any train triple from their tail to their head."""
    n = len(graph.entities)
    train = graph.train[:, 0].astype(np.int64) * n + graph.train[:, 2]
    return contained(rows[:, 2].astype(np.int64) * n + rows[:, 0], train)


def _among(keys: Keys, ascending: Keys) -> NDArray[np.bool_]:
    at = np.minimum(np.searchsorted(ascending, keys), max(0, len(ascending) - 1))
    return np.asarray(ascending[at] == keys) if len(ascending) else np.zeros(len(keys), dtype=bool)
