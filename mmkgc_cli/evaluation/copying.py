"""What a "model" would score that only copies train: the floor that leaks lift.

It gives 1 to every triple of train and 0 to all others; in its second form also 1 to triples whose
counterpart by a symmetric, inverse or equivalent relation is in train. On a clean split the first
form knows nothing: all candidates tie, and the realistic rank is the middle one. What is above that
was in train.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from mmkgc_cli.evaluation.known import Ids, KnownTriples
from mmkgc_cli.evaluation.ranks import SideRanks
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.triples import Triples, distinct_keys
from mmkgc_cli.sides import Side

# (relation to read off, whether head and tail change places)
Sources = Mapping[int, Sequence[tuple[int, bool]]]


def copy_ranks(graph: Graph, split: str, sources: Sources) -> dict[Side, SideRanks]:
    """Filtered ranks of the copying model, in closed form: its scores are 0 and 1.

    Args:
        graph: whose train is copied.
        split: whose triples are ranked.
        sources: for each relation, which others are copied too; empty for train alone.
    """
    triples = graph.splits[split]
    near = _touching(graph, triples)
    size = len(graph.entities), len(graph.relations)
    known = KnownTriples(near, *size)
    train = KnownTriples(near[:1], *size)
    return {side: _side(triples.astype(np.int64), known, train, sources, side) for side in Side}


def _touching(graph: Graph, triples: Triples) -> list[Triples]:
    """The rows of each split that share an entity with `triples`: no query needs the others."""
    wanted = np.zeros(len(graph.entities), dtype=bool)
    wanted[triples[:, [0, 2]]] = True
    return [rows[wanted[rows[:, 0]] | wanted[rows[:, 2]]] for rows in graph.splits.values()]


def _side(
    triples: Ids, known: KnownTriples, train: KnownTriples, sources: Sources, side: Side
) -> SideRanks:
    keys, targets = known.keys(triples, side)
    queries, back = np.unique(keys, return_inverse=True)
    n = known.n_entities
    # Predicted (query, entity) pairs, each once, as one number.
    parts = [_copied(queries, train, side, *source) for source in _all(queries, n, sources)]
    predicted = distinct_keys(np.concatenate(parts))
    at, entities = np.divmod(predicted, n)
    unknown = ~known.contains(queries[at], entities, side)
    others = np.bincount(at[unknown], minlength=len(queries))[back]
    wanted = back * n + targets
    found = np.searchsorted(predicted, wanted)
    hit = np.zeros(len(wanted), dtype=bool)
    inside = found < len(predicted)
    hit[inside] = predicted[found[inside]] == wanted[inside]
    candidates = n - np.diff(known.answers(queries, side).ptr)[back] + 1
    # A predicted target ties with the other predicted entities that are not filtered; one that is
    # not comes after them and ties with all the rest.
    optimistic = np.where(hit, 1, 1 + others)
    pessimistic = np.where(hit, 1 + others, candidates)
    return SideRanks(optimistic, pessimistic, candidates)


def _all(queries: Ids, n: int, sources: Sources) -> list[tuple[Ids, int | None, bool]]:
    """Which queries are answered from which relation: their own, and its counterparts."""
    own: list[tuple[Ids, int | None, bool]] = [(np.arange(len(queries)), None, False)]
    relations = queries // n
    for relation in np.unique(relations).tolist():
        at = np.flatnonzero(relations == relation)
        own += [(at, other, turned) for other, turned in sources.get(relation, ())]
    return own


def _copied(
    queries: Ids,
    train: KnownTriples,
    side: Side,
    at: Ids,
    relation: int | None,
    turned: bool,
) -> Ids:
    """``position of the query * n + entity`` for all train answers to the queries `at`."""
    n = train.n_entities
    keys = queries[at]
    if relation is not None:
        keys = relation * n + keys % n
    answers = train.answers(keys, _other(side) if turned else side)
    return np.repeat(at, np.diff(answers.ptr)) * n + answers.ids


def _other(side: Side) -> Side:
    return Side.head if side is Side.tail else Side.tail
