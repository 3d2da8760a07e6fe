"""Symmetric, inverse and equivalent relations, by which train triples answer test queries.

Definitions of Akrami et al. (2020, "Realistic re-evaluation of knowledge graph completion
methods"): two relations are equivalent when most (head, tail) pairs of each are pairs of the other,
and inverse when most (tail, head) pairs are. A relation is symmetric when it is its own inverse.
Shares are computed over the distinct triples of all splits and do not depend on the split.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.triples import Keys, Triples, contained, distinct_keys, rows_of_keys, triple_keys

SHARE = 0.8
FEWEST = 10  # minimum number of shared pairs; three triples are not a pattern
# Joined pairs in total; more occur only with thousands of relations per pair of entities.
BUDGET = 500_000_000
_CHUNK = 4_000_000  # joined pairs in memory

Kind = Literal["symmetric", "inverse", "equivalent"]


@dataclass(frozen=True)
class RelationPair:
    """Two relations with mostly the same pairs of entities, reversed or not.

    `share` is the fraction of pairs of `first` that `second` contains, `share_back` the reverse.
    """

    kind: Kind
    first: int
    second: int
    share: float
    share_back: float
    triples: int  # shared pairs of entities

    @property
    def swaps_sides(self) -> bool:
        """Whether the head of one relation is the tail of the other."""
        return self.kind != "equivalent"


def relation_pairs(graph: Graph) -> list[RelationPair] | None:
    """All pairs of relations with both shares at or above `SHARE`, largest first.

    Returns None when comparing the relations would take more than `BUDGET` steps, because very many
    relations connect the same entities.
    """
    n, n_relations = len(graph.entities), len(graph.relations)
    keys = distinct_keys(np.concatenate([graph.keys(split) for split in graph.splits]))
    rows = rows_of_keys(keys, n, n_relations)
    links = rows[rows[:, 0] != rows[:, 2]]  # a loop is its own inverse and not informative
    sizes = np.bincount(links[:, 1], minlength=n_relations)
    forward = _by_pair(links[:, 0], links[:, 2], links[:, 1], n)
    backward = _by_pair(links[:, 2], links[:, 0], links[:, 1], n)
    pairs: list[RelationPair] = []
    for swaps_sides, queries in ((True, backward), (False, forward)):
        counts = _shared(forward, queries, n_relations)
        if counts is None:
            return None
        pairs += _above(counts, sizes, swaps_sides=swaps_sides)
    return sorted(pairs, key=lambda pair: (-pair.triples, pair.first, pair.second))


_Column = NDArray[np.int32]


def _by_pair(first: _Column, second: _Column, relations: _Column, n: int) -> tuple[Keys, _Column]:
    """Pairs of entities as integers, ascending, and the relation of each."""
    keys = first.astype(np.int64) * n + second
    order = np.argsort(keys)
    return keys[order], relations[order]


def _shared(
    table: tuple[Keys, _Column], queries: tuple[Keys, _Column], n_relations: int
) -> dict[tuple[int, int], int] | None:
    """The number of pairs that a relation of `queries` shares with a relation of `table`."""
    keys, relations = table
    # Both are ascending, so that the search reads memory in order.
    start = np.searchsorted(keys, queries[0], side="left")
    lengths = np.searchsorted(keys, queries[0], side="right") - start
    if lengths.sum() > BUDGET:
        return None
    matched = lengths > 0
    start, lengths = start[matched], lengths[matched]
    query_relations = queries[1][matched].astype(np.int64)
    counts: dict[tuple[int, int], int] = {}
    bounds = np.concatenate([[0], np.cumsum(lengths)])
    first = 0
    while first < len(query_relations):
        last = int(np.searchsorted(bounds, bounds[first] + _CHUNK, side="right")) - 1
        last = max(last, first + 1)
        chunk = lengths[first:last]
        # The concatenation of the ranges start..start + length.
        positions = np.arange(chunk.sum()) + np.repeat(
            start[first:last] - (bounds[first:last] - bounds[first]), chunk
        )
        codes = np.repeat(query_relations[first:last] * n_relations, chunk) + relations[positions]
        values, code_counts = np.unique(codes, return_counts=True)
        for code, count in zip(values.tolist(), code_counts.tolist(), strict=True):
            pair = divmod(code, n_relations)
            counts[pair] = counts.get(pair, 0) + count
        first = last
    return counts


def _above(
    counts: dict[tuple[int, int], int], sizes: NDArray[np.int64], *, swaps_sides: bool
) -> list[RelationPair]:
    pairs = []
    for (first, second), count in counts.items():
        share, share_back = count / sizes[first], count / sizes[second]
        same = first == second
        if first > second or (same and not swaps_sides) or count < FEWEST:
            continue
        if min(share, share_back) >= SHARE:
            kind: Kind = "symmetric" if same else "inverse" if swaps_sides else "equivalent"
            pairs.append(RelationPair(kind, first, second, float(share), float(share_back), count))
    return pairs


def counterparts(pairs: list[RelationPair]) -> dict[int, list[tuple[int, bool]]]:
    """The paired relations of each relation, and whether head and tail are swapped."""
    sources: dict[int, list[tuple[int, bool]]] = {}
    for pair in pairs:
        sources.setdefault(pair.first, []).append((pair.second, pair.swaps_sides))
        if pair.first != pair.second:
            sources.setdefault(pair.second, []).append((pair.first, pair.swaps_sides))
    return sources


def answered(
    graph: Graph, rows: Triples, pairs: list[RelationPair], train: Keys
) -> NDArray[np.bool_]:
    """A mask ``[n]`` of the rows that have a counterpart by one of `pairs` in train.

    Args:
        graph: the graph, for its number of entities and relations.
        rows: triples ``[n, 3]``.
        pairs: the relation pairs.
        train: the distinct keys of train, ascending.
    """
    mask = np.zeros(len(rows), dtype=bool)
    size = len(graph.entities), len(graph.relations)
    sources = counterparts(pairs)
    for relation in np.unique(rows[:, 1]).tolist():
        positions = np.flatnonzero(rows[:, 1] == relation)
        for other, swaps_sides in sources.get(relation, ()):
            columns = [2, 1, 0] if swaps_sides else [0, 1, 2]
            counterpart = rows[positions][:, columns].copy()
            counterpart[:, 1] = other
            mask[positions] |= _among(triple_keys(counterpart, *size), train)
    return mask


def reversed_in_train(graph: Graph, rows: Triples) -> NDArray[np.bool_]:
    """A mask ``[n]`` of the rows with any train triple from their tail to their head."""
    n = len(graph.entities)
    train = graph.train[:, 0].astype(np.int64) * n + graph.train[:, 2]
    return contained(rows[:, 2].astype(np.int64) * n + rows[:, 0], train)


def _among(keys: Keys, ascending: Keys) -> NDArray[np.bool_]:
    if not len(ascending):
        return np.zeros(len(keys), dtype=bool)
    positions = np.minimum(np.searchsorted(ascending, keys), len(ascending) - 1)
    return np.asarray(ascending[positions] == keys)
