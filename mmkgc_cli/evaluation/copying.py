"""Ranks of a baseline that copies train triples, which shows how much a split leaks.

The baseline scores train triples 1 and all others 0. Its second form also scores a triple 1 if
train contains the counterpart under a symmetric, inverse or equivalent relation. On a split without
leaks, all candidates of the first form tie, so the realistic rank is the middle one. A better rank
means that the answer could be copied from train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmkgc_cli.evaluation.known import Ids, KnownTriples
from mmkgc_cli.evaluation.ranks import SideRanks
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.triples import Triples, distinct_keys
from mmkgc_cli.sides import Side

# Per relation: (relation to copy from, whether head and tail are swapped).
Sources = Mapping[int, Sequence[tuple[int, bool]]]


def copy_ranks(graph: Graph, split: str, sources: Sources) -> dict[Side, SideRanks]:
    """Computes the filtered ranks of the copying baseline in closed form.

    Args:
        graph: a graph; its train triples are copied.
        split: name of the split to rank.
        sources: for each relation, the other relations that are copied; empty for train only.
    """
    triples = graph.splits[split]
    relevant = _relevant_triples(graph, triples)
    size = len(graph.entities), len(graph.relations)
    known = KnownTriples(relevant, *size)
    train = KnownTriples(relevant[:1], *size)
    return {
        side: _rank_side(triples.astype(np.int64), known, train, sources, side) for side in Side
    }


def _relevant_triples(graph: Graph, triples: Triples) -> list[Triples]:
    """The triples of each split that share an entity with `triples`; queries need no others."""
    is_used = np.zeros(len(graph.entities), dtype=bool)
    is_used[triples[:, [0, 2]]] = True
    return [rows[is_used[rows[:, 0]] | is_used[rows[:, 2]]] for rows in graph.splits.values()]


def _rank_side(
    triples: Ids, known: KnownTriples, train: KnownTriples, sources: Sources, side: Side
) -> SideRanks:
    keys, targets = known.keys(triples, side)
    queries, query = np.unique(keys, return_inverse=True)
    n = known.n_entities
    # Distinct predicted (query, entity) pairs, each as one number.
    pairs = [
        _copied_pairs(queries, train, side, *source)
        for source in _query_sources(queries, n, sources)
    ]
    predicted = distinct_keys(np.concatenate(pairs))
    query_of_pair, entities = np.divmod(predicted, n)
    is_unfiltered = ~known.contains(queries[query_of_pair], entities, side)
    others = np.bincount(query_of_pair[is_unfiltered], minlength=len(queries))[query]
    target_pairs = query * n + targets
    position = np.searchsorted(predicted, target_pairs)
    hit = np.zeros(len(target_pairs), dtype=bool)
    inside = position < len(predicted)
    hit[inside] = predicted[position[inside]] == target_pairs[inside]
    candidates = n - np.diff(known.answers(queries, side).ptr)[query] + 1
    # A predicted target ties with the other predicted unfiltered entities. A target that is not
    # predicted ranks below these and ties with all remaining candidates.
    optimistic = np.where(hit, 1, 1 + others)
    pessimistic = np.where(hit, 1 + others, candidates)
    return SideRanks(optimistic, pessimistic, candidates)


def _query_sources(queries: Ids, n: int, sources: Sources) -> list[tuple[Ids, int | None, bool]]:
    """(positions of queries, relation to copy from, whether swapped); None is the own relation."""
    result: list[tuple[Ids, int | None, bool]] = [(np.arange(len(queries)), None, False)]
    relations = queries // n
    for relation in np.unique(relations).tolist():
        positions = np.flatnonzero(relations == relation)
        result += [(positions, other, swapped) for other, swapped in sources.get(relation, ())]
    return result


def _copied_pairs(
    queries: Ids,
    train: KnownTriples,
    side: Side,
    positions: Ids,
    relation: int | None,
    swapped: bool,
) -> Ids:
    """``position * n + entity`` for all train answers of the queries at `positions`."""
    n = train.n_entities
    keys = queries[positions]
    if relation is not None:
        keys = relation * n + keys % n
    answers = train.answers(keys, _other(side) if swapped else side)
    return np.repeat(positions, np.diff(answers.ptr)) * n + answers.ids


def _other(side: Side) -> Side:
    return Side.head if side is Side.tail else Side.tail
