from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkgc_cli.evaluation import ranker
from mmkgc_cli.evaluation.known import KnownTriples
from mmkgc_cli.evaluation.metrics import side_metrics
from mmkgc_cli.evaluation.ranker import NonFiniteScores, rank
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.scoring import Side
from tests.conftest import random_graph
from tests.scoring.extended import EXTENDED, Branches, WholeTriples
from tests.scoring.small import DistMult, TransE, of


def known(graph: Graph) -> KnownTriples:
    return KnownTriples(list(graph.splits.values()), len(graph.entities), len(graph.relations))


def brute_force(score: Tensor, graph: Graph, side: Side) -> list[tuple[int, int, int]]:
    """Computes optimistic, pessimistic and candidates from all scores ``[E, R, E]``."""
    true = {tuple(row) for rows in graph.splits.values() for row in rows.tolist()}
    result = []
    for h, r, t in graph.test.tolist():
        true_score = float(score[h, r, t])
        others = []
        for e in range(len(graph.entities)):
            triple = (h, r, e) if side is Side.tail else (e, r, t)
            if triple != (h, r, t) and triple not in true:
                others.append(float(score[triple]))
        better = sum(s > true_score for s in others)
        equal = sum(s == true_score for s in others)
        result.append((1 + better, 1 + better + equal, 1 + len(others)))
    return result


@pytest.mark.parametrize("scorer_class", [DistMult, TransE])
@given(seed=st.integers(0, 50))
def test_ranks_equal_brute_force(scorer_class: type, seed: int) -> None:
    graph = random_graph(15, 3, 120, seed)
    scorer = of(scorer_class, graph, seed)
    n, r = len(graph.entities), len(graph.relations)
    grid = torch.cartesian_prod(torch.arange(n), torch.arange(r), torch.arange(n))
    scores = scorer.score(grid).detach().view(n, r, n)
    ranks = rank(scorer, graph.test, known(graph))
    for side in Side:
        result = ranks[side]
        rows = zip(result.optimistic, result.pessimistic, result.candidates, strict=True)
        assert [tuple(map(int, row)) for row in rows] == brute_force(scores, graph, side)


@pytest.mark.parametrize(
    "scorer_class", [c for c in EXTENDED if not c.modalities], ids=lambda c: c.__name__
)
def test_ranks_with_extensions_follow_the_scores(graph: Graph, scorer_class: type) -> None:
    scorer = of(scorer_class, graph, 3).double()
    n, r = len(graph.entities), len(graph.relations)
    entities, relations = (x.flatten() for x in torch.meshgrid(
        torch.arange(n), torch.arange(r), indexing="ij"
    ))  # fmt: skip
    ranks = rank(scorer, graph.test, known(graph))
    for side in Side:
        with torch.no_grad():
            scores = scorer.score_all(entities, relations, side).view(n, r, n)
        if side is Side.head:
            scores = scores.permute(2, 1, 0)
        result = ranks[side]
        rows = zip(result.optimistic, result.pessimistic, result.candidates, strict=True)
        assert [tuple(map(int, row)) for row in rows] == brute_force(scores, graph, side)


@pytest.mark.parametrize("entities", [3, 64, 65, 300])
@given(value=st.floats(-4, 4, width=32))
def test_equal_candidates_of_joined_branches_tie_at_any_position(
    entities: int, value: float
) -> None:
    graph = random_graph(entities, 2, 10, 0)
    scorer = of(Branches, graph, 0)
    with torch.no_grad():
        scorer.get_parameter("entities").fill_(value)
    for ranks in rank(scorer, graph.test, known(graph)).values():
        assert np.array_equal(ranks.pessimistic, ranks.candidates)


@pytest.mark.parametrize("scorer_class", [Branches, WholeTriples])
def test_ranks_do_not_depend_on_the_number_of_scores_in_memory(
    graph: Graph, scorer_class: type, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, filters = of(scorer_class, graph, 1), known(graph)
    whole = rank(scorer, graph.test, filters)
    monkeypatch.setattr(ranker, "SCORES_AT_ONCE", 3 * len(graph.entities))
    for side, ranks in rank(scorer, graph.test, filters).items():
        assert np.array_equal(ranks.optimistic, whole[side].optimistic)
        assert np.array_equal(ranks.pessimistic, whole[side].pessimistic)


@pytest.mark.parametrize("scorer_class", [Branches, WholeTriples])
def test_non_finite_scores_of_extensions_are_an_error(graph: Graph, scorer_class: type) -> None:
    scorer = of(scorer_class, graph, 0)
    with torch.no_grad():
        scorer.get_parameter("entities")[7, 0] = float("nan")
    with pytest.raises(NonFiniteScores, match="scores are NaN or infinite for relation"):
        rank(scorer, graph.test, known(graph))


def test_constant_scores_give_the_mean_rank(graph: Graph) -> None:
    scorer = of(DistMult, graph, 0)
    torch.nn.init.constant_(scorer.get_parameter("entities"), 1.0)
    ranks = rank(scorer, graph.test, known(graph))
    for side in Side:
        result = ranks[side]
        assert np.array_equal(result.realistic, (result.candidates + 1) / 2)
        assert (result.optimistic == 1).all()
        assert np.array_equal(result.pessimistic, result.candidates)
    assert side_metrics(ranks)["both"]["realistic"]["amri"] == pytest.approx(0)


@pytest.mark.parametrize("bad", [float("nan"), float("inf")])
def test_non_finite_scores_are_an_error(graph: Graph, bad: float) -> None:
    scorer = of(TransE, graph, 0)
    with torch.no_grad():
        scorer.get_parameter("entities")[7, 0] = bad
    with pytest.raises(NonFiniteScores, match="scores are NaN or infinite for relation"):
        rank(scorer, graph.test, known(graph))


def test_repeated_test_triples_each_get_their_rank(graph: Graph) -> None:
    scorer, filters = of(TransE, graph, 1), known(graph)
    once = rank(scorer, graph.test, filters)
    twice = rank(scorer, np.concatenate([graph.test, graph.test[::-1]]), filters)
    for side in Side:
        repeated = twice[side].optimistic
        assert np.array_equal(repeated[: len(graph.test)], once[side].optimistic)
        assert np.array_equal(repeated[len(graph.test) :][::-1], once[side].optimistic)


def test_ranks_do_not_depend_on_the_queries_per_call(
    graph: Graph, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer, filters = of(TransE, graph, 1), known(graph)
    whole = rank(scorer, graph.test, filters)
    monkeypatch.setattr(ranker, "QUERIES_PER_CALL", 3)
    for side, ranks in rank(scorer, graph.test, filters).items():
        assert np.array_equal(ranks.optimistic, whole[side].optimistic)
        assert np.array_equal(ranks.candidates, whole[side].candidates)


def test_no_triples_give_no_ranks(graph: Graph) -> None:
    ranks = rank(of(TransE, graph, 1), graph.test[:0], known(graph))
    assert len(ranks[Side.head].optimistic) == 0
    assert side_metrics(ranks)["both"] == {"count": 0}


def test_answers_of_unknown_queries_are_empty(graph: Graph) -> None:
    filters = KnownTriples([graph.train[:1]], len(graph.entities), len(graph.relations))
    h, r, t = graph.train[0].tolist()
    keys = np.array([r * 40 + h, r * 40 + (h + 1) % 40, 5 * 40 - 1])
    rows = filters.answers(keys, Side.tail)
    assert rows.ptr.tolist()[:3] == [0, 1, 1]
    assert rows.ids.tolist()[:1] == [t]
    assert filters.contains(keys[:2], np.array([t, t]), Side.tail).tolist() == [True, False]
