from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.kg import relation_pairs as module
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.relation_pairs import answered, relation_pairs, reversed_in_train
from mmkgc_cli.kg.triples import distinct_keys

N, R = 6, 3
ROWS = st.lists(
    st.tuples(st.integers(0, N - 1), st.integers(0, R - 1), st.integers(0, N - 1)), max_size=60
)


def graph_of(*splits: list[tuple[int, int, int]]) -> Graph:
    arrays = [np.array(rows, dtype=np.int32).reshape(-1, 3) for rows in splits]
    names = [f"e{i}" for i in range(N)], [f"r{i}" for i in range(R)]
    return Graph("g", *names, *arrays)


@given(train=ROWS.filter(bool), test=ROWS, chunk=st.integers(1, 5))
def test_relation_pairs_follow_the_definition(
    train: list[tuple[int, int, int]], test: list[tuple[int, int, int]], chunk: int
) -> None:
    pairs: dict[int, set[tuple[int, int]]] = {r: set() for r in range(R)}
    for h, r, t in [*train, *test]:
        if h != t:
            pairs[r].add((h, t))
    expected = set()
    for kind, swaps_sides in (("inverse", True), ("equivalent", False)):
        for a in range(R):
            for b in range(a, R):
                other = {(t, h) for h, t in pairs[b]} if swaps_sides else pairs[b]
                shared = len(pairs[a] & other)
                if a == b and not swaps_sides:
                    continue
                if shared >= 3 and min(shared / len(pairs[a]), shared / len(other)) >= 0.8:
                    expected.add(("symmetric" if a == b else kind, a, b, shared))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(module, "FEWEST", 3)
        patch.setattr(module, "_CHUNK", chunk)
        actual = relation_pairs(graph_of(train, [], test))
    assert actual is not None
    assert {(p.kind, p.first, p.second, p.triples) for p in actual} == expected


@given(train=ROWS.filter(bool), test=ROWS)
def test_answered_rows_have_a_counterpart_in_train(
    train: list[tuple[int, int, int]], test: list[tuple[int, int, int]]
) -> None:
    graph = graph_of(train, [], test)
    pairs = [
        module.RelationPair("inverse", 0, 1, 1.0, 1.0, 1),
        module.RelationPair("symmetric", 2, 2, 1.0, 1.0, 1),
        module.RelationPair("equivalent", 1, 2, 1.0, 1.0, 1),
    ]
    known = set(train)

    def counterpart(h: int, r: int, t: int) -> bool:
        triples = {0: [(t, 1, h)], 1: [(t, 0, h), (h, 2, t)], 2: [(t, 2, h), (h, 1, t)]}[r]
        return bool(known & set(triples))

    keys = distinct_keys(graph.keys("train"))
    mask = answered(graph, graph.test, pairs, keys)
    assert mask.tolist() == [counterpart(*row) for row in test]
    links = {(h, t) for h, _, t in train}
    assert reversed_in_train(graph, graph.test).tolist() == [(t, h) in links for h, _, t in test]


def test_a_graph_with_too_many_relations_between_two_entities_is_not_compared(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    graph = graph_of([(0, r, 1) for r in range(R)] + [(1, r, 0) for r in range(R)], [], [])
    assert relation_pairs(graph) == []
    monkeypatch.setattr(module, "BUDGET", 5)
    assert relation_pairs(graph) is None
