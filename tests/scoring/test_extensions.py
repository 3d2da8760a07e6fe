from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli.errors import DataError
from mmkgc_cli.ops import Metric
from mmkgc_cli.scoring import Features, Scorer, Side
from mmkgc_cli.scoring.contract import Candidates, ScorerFault
from tests.scoring.extended import (
    EXTENDED,
    Branches,
    DistMult,
    FourTerms,
    Mirrored,
    PairRE,
    PerRelation,
    PerRelationAndRole,
    Roles,
    ScaledBranches,
    WholeTriples,
    WithImage,
)

N, R, D = 6, 2, 4


def make(scorer_class: type[Scorer], **arguments: Any) -> Scorer:
    rng = torch.Generator().manual_seed(0)
    scorer: Scorer = scorer_class(scorer_class.Config(), N, R, rng, **arguments).double()
    return scorer


def all_triples() -> Tensor:
    return torch.cartesian_prod(torch.arange(N), torch.arange(R), torch.arange(N))


def closed_form(scorer: Scorer, h: int, r: int, t: int) -> Tensor:
    """The papers' equations, one triple at a time, without rows."""
    e, w = scorer.get_parameter("entities"), scorer.get_parameter("relations")[r]
    if isinstance(scorer, PairRE):
        return -(e[h] * w[:D] - e[t] * w[D:]).abs().sum()
    if isinstance(scorer, Roles):
        return -(e[h] @ scorer.maps[1] + w - e[t] @ scorer.maps[0]).abs().sum()
    if isinstance(scorer, PerRelationAndRole):
        return (torch.tanh(e[h] * w[D:]) * torch.tanh(e[t] * w[:D])).sum()
    if isinstance(scorer, PerRelation):
        return (torch.tanh(e[h] * w) * torch.tanh(e[t] * w)).sum()
    if isinstance(scorer, ScaledBranches):
        dot = 2 * (e[h] * w[:D] * e[t]).sum()
        part = (e[h] + w[D:] - e[t]).abs()
        return (dot.sigmoid() + (-0.5 * part[:2].sum() - 2 * part[2:].sum()).sigmoid()) / 2
    if isinstance(scorer, Branches):
        dot, distance = (e[h] * w[:D] * e[t]).sum(), (e[h] + w[D:] - e[t]).abs().sum()
        return (dot.sigmoid() + (-distance).sigmoid()) / 2
    if isinstance(scorer, FourTerms):
        heads, tails = e[h].chunk(2), e[t].chunk(2)
        return -torch.stack([(a + w - b).abs().sum() for a in heads for b in tails]).sum()
    raise AssertionError(scorer)


@pytest.mark.parametrize(
    "scorer_class",
    [PairRE, Roles, PerRelation, PerRelationAndRole, Branches, ScaledBranches, FourTerms],
)
def test_each_extension_scores_by_its_closed_form(scorer_class: type[Scorer]) -> None:
    scorer = make(scorer_class)
    triples = all_triples()
    expected = torch.stack([closed_form(scorer, *row) for row in triples.tolist()])
    torch.testing.assert_close(scorer.score(triples), expected, atol=1e-12, rtol=0)


def test_the_head_query_of_a_reciprocal_relation_is_a_tail_query_of_its_inverse() -> None:
    scorer = make(Mirrored)
    assert scorer.relation_rows == 2 * R
    assert not scorer.two_way
    h, r, t = all_triples().unbind(1)
    actual = scorer.score_answers(t, r, h, Side.head)
    entities, relations = scorer.get_parameter("entities"), scorer.get_parameter("relations")
    expected = (entities[t] * relations[r + R] * entities[h]).sum(1)
    torch.testing.assert_close(actual, expected)
    assert not torch.allclose(actual, scorer.score(all_triples()))


def test_the_last_relation_and_entity_have_their_own_rows_among_gathered_pairs() -> None:
    scorer = make(PerRelationAndRole)
    ids = torch.tensor([[N - 1, 0, N - 1, N - 1]])
    side = torch.tensor([[0, 1, 1, 0]], dtype=torch.int8)
    actual = scorer.score_sampled(torch.tensor([[2, R - 1, 3]]), Candidates(ids, side))[0]
    triples = [(2, N - 1), (0, 3), (N - 1, 3), (2, N - 1)]
    expected = scorer.score(torch.tensor([[h, R - 1, t] for h, t in triples]))
    torch.testing.assert_close(actual, expected)


@pytest.mark.parametrize("scorer_class", EXTENDED, ids=lambda c: c.__name__)
def test_no_candidates_have_no_scores(scorer_class: type[Scorer]) -> None:
    features = {"image": Features(torch.randn(N, 3), torch.ones(N, dtype=torch.bool))}
    scorer = make(scorer_class, **({"features": features} if scorer_class.modalities else {}))
    none = torch.empty(0, dtype=torch.int64)
    ids, side = torch.empty(0, 3, dtype=torch.int64), torch.empty(0, 3, dtype=torch.int8)
    positives = torch.empty(0, 3, dtype=torch.int64)
    assert scorer.score_sampled(positives, Candidates(ids, side)).shape == (0, 3)
    assert scorer.score_all(none, none, Side.tail).shape == (0, N)
    assert scorer.score(positives).shape == (0,)


def test_vectors_in_place_of_candidates_are_scored_with_their_scale() -> None:
    scorer = make(PairRE)
    heads, relations = torch.tensor([0, 1]), torch.tensor([1, 0])
    queries = scorer.query(heads, relations, Side.tail)
    scale = scorer.scale(heads, relations, Side.tail)
    assert isinstance(queries, Tensor)
    assert isinstance(scale, Tensor)
    vectors = scorer.get_parameter("entities")[None].expand(2, -1, -1)
    actual = scorer.score_vectors(queries[:, None], vectors, scale[:, None])
    torch.testing.assert_close(actual, scorer.score_all(heads, relations, Side.tail))


def test_vectors_of_branches_are_lists() -> None:
    scorer = make(Branches)
    heads, relations = torch.tensor([0, 1]), torch.tensor([1, 0])
    queries = [q[:, None] for q in scorer.query(heads, relations, Side.tail)]
    vectors = [c[None].expand(2, -1, -1) for c in scorer.candidates(None)]
    actual = scorer.score_vectors(queries, vectors)
    torch.testing.assert_close(actual, scorer.score_all(heads, relations, Side.tail))


@pytest.mark.parametrize("metric", list(Metric))
def test_scores_of_all_have_the_gradients_of_a_loop(metric: Metric) -> None:
    scorer_class = type("Any", (DistMult,), {"metric": metric})
    scorer = make(scorer_class)
    heads, relations = torch.arange(3), torch.tensor([1, 0, 1])
    actual = scorer.score_all(heads, relations, Side.tail)
    expected = torch.stack(
        [scorer.score_answers(heads, relations, torch.full((3,), e), Side.tail) for e in range(N)],
        1,
    )
    torch.testing.assert_close(actual, expected)
    parameters = list(scorer.parameters())
    grads = [torch.autograd.grad(x.sin().sum(), parameters) for x in (actual, expected)]
    for a, b in zip(*grads, strict=True):
        torch.testing.assert_close(a, b)


def test_features_must_be_present_and_belong_to_the_entities() -> None:
    vectors, observed = torch.randn(N, 3), torch.ones(N, dtype=torch.bool)
    with pytest.raises(
        DataError, match="WithImage: expected features of modality 'image', got text; pass"
    ):
        make(WithImage, features={"text": Features(vectors, observed)})
    with pytest.raises(DataError, match=r"'image' are \[5, 3\] float32 .* for each of 6 entities"):
        make(WithImage, features={"image": Features(vectors[:5], observed[:5])})


def test_a_missing_row_is_an_error_with_file_method_and_shapes() -> None:
    class Short(DistMult):
        def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
            rows = super().query(entities, relations, side)
            assert isinstance(rows, Tensor)
            return rows[1:]

    with pytest.raises(
        ScorerFault,
        match=r"test_extensions.py: .*Short.query: expected \[72, D\], .* got \[71, 4\] float64",
    ):
        make(Short).score(all_triples())


def test_only_a_scorer_without_queries_scores_triples_only() -> None:
    assert WholeTriples.scores_triples_only()
    assert not any(c.scores_triples_only() for c in EXTENDED if c is not WholeTriples)


def test_missing_definitions_are_errors() -> None:
    with pytest.raises(ScorerFault, match="Nothing.score: expected definitions of query and cand"):
        make(type("Nothing", (Scorer,), {})).score(all_triples())
    half = type("Half", (Scorer,), {"query": DistMult.query, "metric": Metric.dot})
    with pytest.raises(ScorerFault, match="Half.candidates: expected a definition, as query has"):
        make(half).candidates(None)
    with pytest.raises(ScorerFault, match="Half.metric: expected a Metric, or a tuple of them"):
        make(type("Half", (DistMult,), {"metric": "dot"})).score(all_triples())
