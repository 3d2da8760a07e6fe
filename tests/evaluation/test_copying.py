from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.evaluation.copying import Sources, copy_ranks
from mmkgc_cli.evaluation.metrics import side_metrics
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.sides import Side

N, R = 6, 3
Triple = tuple[int, int, int]
ROWS = st.lists(
    st.tuples(st.integers(0, N - 1), st.integers(0, R - 1), st.integers(0, N - 1)), max_size=25
)
SOURCES = st.dictionaries(
    st.integers(0, R - 1),
    st.lists(st.tuples(st.integers(0, R - 1), st.booleans()), max_size=2, unique=True),
)


def graph_of(*splits: list[Triple]) -> Graph:
    arrays = [np.array(rows, dtype=np.int32).reshape(-1, 3) for rows in splits]
    return Graph("g", [f"e{i}" for i in range(N)], [f"r{i}" for i in range(R)], *arrays)


def brute_force(graph: Graph, sources: Sources, triple: Triple, side: Side) -> tuple[float, int]:
    """Computes the realistic rank and the number of candidates by scoring every entity."""
    train = {tuple(row) for row in graph.train.tolist()}
    known = {tuple(row) for rows in graph.splits.values() for row in rows.tolist()}

    def score(h: int, r: int, t: int) -> int:
        copied = [(h, r, t)]
        copied += [(t, o, h) if swapped else (h, o, t) for o, swapped in sources.get(r, ())]
        return int(any(row in train for row in copied))

    h, r, t = triple
    candidates = [(h, r, e) if side is Side.tail else (e, r, t) for e in range(N)]
    kept = [row for row in candidates if row == triple or row not in known]
    scores = [score(*row) for row in kept]
    true_score = score(*triple)
    better = sum(s > true_score for s in scores)
    equal = sum(s == true_score for s in scores) - 1
    return 1 + better + equal / 2, len(kept)


@given(train=ROWS.filter(bool), valid=ROWS, test=ROWS.filter(bool), sources=SOURCES)
def test_ranks_equal_those_of_scoring_every_entity(
    train: list[Triple], valid: list[Triple], test: list[Triple], sources: Sources
) -> None:
    graph = graph_of(train, valid, test)
    ranks = copy_ranks(graph, "test", sources)
    for side in Side:
        pairs = zip(ranks[side].realistic.tolist(), ranks[side].candidates.tolist(), strict=True)
        assert list(pairs) == [brute_force(graph, sources, row, side) for row in test]


def test_a_leaked_split_ranks_first_and_a_clean_split_at_chance(graph: Graph) -> None:
    leaked = Graph(graph.name, graph.entities, graph.relations, graph.train, graph.valid,
                   graph.train[:20])  # fmt: skip
    assert side_metrics(copy_ranks(leaked, "test", {}))["both"]["realistic"]["mrr"] == 1.0
    assert abs(side_metrics(copy_ranks(graph, "test", {}))["both"]["realistic"]["amri"]) < 1e-9
