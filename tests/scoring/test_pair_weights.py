"""The score is the sum over pairs of weight x metric, on every path, by its closed form."""

from __future__ import annotations

import contextlib
import dataclasses
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from mmkgc_cli.evaluation.known import KnownTriples
from mmkgc_cli.evaluation.ranker import rank
from mmkgc_cli.ops import Metric, Pair, SelfAdversarial, without_kernels
from mmkgc_cli.sampling.contract import EmbeddedNegatives, SharedNegatives
from mmkgc_cli.scoring import Side
from mmkgc_cli.scoring.contract import Candidates, Scorer
from mmkgc_cli.training.negative_scores import negative_scores
from tests.scoring.extended import DistMult

N, R = 7, 2
# Three pairs of blocks in rows of four columns; weights differ, so that no one can be left out.
PAIRS = (Pair(0, 0, 2, 0.5), Pair(2, 2, 2, 2.0), Pair(0, 2, 2, 3.0))
UNWEIGHTED = tuple(dataclasses.replace(pair, weight=1.0) for pair in PAIRS)
POSITIVES = torch.tensor([[0, 0, 1], [2, 1, 3], [4, 0, 4], [6, 1, 5]])
METRICS = list(Metric)


class WeightedPairs(DistMult):
    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        return PAIRS


@pytest.fixture(params=["native", "reference"], autouse=True)
def backend(request: pytest.FixtureRequest) -> Iterator[None]:
    with without_kernels() if request.param == "reference" else contextlib.nullcontext():
        yield


def make(metric: Metric) -> Scorer:
    scorer_class: Any = type("Weighted", (WeightedPairs,), {"metric": metric})
    scorer: Scorer = scorer_class(
        scorer_class.Config(), N, R, torch.Generator().manual_seed(0)
    ).double()
    return scorer


def term(metric: Metric, q: list[float], c: list[float]) -> float:
    if metric is Metric.dot:
        return sum(a * b for a, b in zip(q, c, strict=True))
    differences = [a - b for a, b in zip(q, c, strict=True)]
    if metric is Metric.l1:
        return -sum(abs(d) for d in differences)
    if metric is Metric.l2:
        return -math.sqrt(sum(d * d for d in differences))
    half = len(q) // 2  # modulus: [re | im]
    return -sum(math.hypot(differences[k], differences[half + k]) for k in range(half))


def closed_form(
    scorer: Scorer, known: int, relation: int, answer: int, pairs: Sequence[Pair] = PAIRS
) -> float:
    assert isinstance(scorer.metric, Metric)
    entities = scorer.get_parameter("entities").tolist()
    relations = scorer.get_parameter("relations").tolist()
    query = [a * b for a, b in zip(entities[known], relations[relation], strict=True)]
    total = 0.0
    for pair in pairs:
        q = query[pair.query : pair.query + pair.width]
        c = entities[answer][pair.candidate : pair.candidate + pair.width]
        total += pair.weight * term(scorer.metric, q, c)
    return total


def of_all(scorer: Scorer, side: Side, pairs: Sequence[Pair] = PAIRS) -> Tensor:
    """Scores ``[4, N]`` of all entities as answers to the queries of `POSITIVES`."""
    rows = []
    for h, r, t in POSITIVES.tolist():
        known = h if side is Side.tail else t
        rows.append([closed_form(scorer, known, r, answer, pairs) for answer in range(N)])
    return torch.tensor(rows, dtype=torch.float64)


def candidates() -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(1)
    ids = torch.randint(N, (4, 3), generator=rng)
    corrupted_side = torch.randint(2, (4, 3), generator=rng, dtype=torch.int8)
    return ids, corrupted_side


def of_candidates(scorer: Scorer, ids: Tensor, corrupted_side: Tensor) -> Tensor:
    """Scores of `ids` [4, n] on `corrupted_side` [4, n]."""
    tail, head = (of_all(scorer, side).gather(1, ids) for side in Side)
    return torch.where(corrupted_side == Side.head, head, tail)


@pytest.mark.parametrize("metric", METRICS)
def test_triples_and_answers(metric: Metric) -> None:
    scorer = make(metric)
    h, r, t = POSITIVES.unbind(1)
    tails = of_all(scorer, Side.tail).gather(1, t[:, None])[:, 0]
    heads = of_all(scorer, Side.head).gather(1, h[:, None])[:, 0]
    torch.testing.assert_close(scorer.score(POSITIVES), tails)
    torch.testing.assert_close(scorer.score_answers(t, r, h, Side.head), heads)


@pytest.mark.parametrize("metric", METRICS)
def test_rows_in_place_of_ids(metric: Metric) -> None:
    scorer = make(metric)
    h, r, _ = POSITIVES.unbind(1)
    vectors = scorer.get_parameter("entities")[None].expand(4, -1, -1)
    queries = scorer.query(h, r, Side.tail)
    assert isinstance(queries, Tensor)
    scores = scorer.score_vectors(queries[:, None], vectors)
    torch.testing.assert_close(scores, of_all(scorer, Side.tail))
    ids, corrupted_side = candidates()
    embedded = EmbeddedNegatives(scorer.candidates(None)[ids], corrupted_side)
    actual = negative_scores(scorer, POSITIVES, embedded)[1]
    torch.testing.assert_close(actual, of_candidates(scorer, ids, corrupted_side))


@pytest.mark.parametrize("metric", METRICS)
def test_sampled_candidates_and_their_loss(metric: Metric) -> None:
    scorer = make(metric)
    ids, corrupted_side = candidates()
    expected = of_candidates(scorer, ids, corrupted_side)
    scores = scorer.score_sampled(POSITIVES, Candidates(ids, corrupted_side))
    torch.testing.assert_close(scores, expected)
    negatives = Candidates.from_negatives(POSITIVES, ids, corrupted_side)
    positive = of_all(scorer, Side.tail).gather(1, POSITIVES[:, 2:])[:, 0]
    loss = SelfAdversarial()
    torch.testing.assert_close(
        scorer.loss_sampled(POSITIVES, negatives, loss), loss(positive, expected, None)
    )


@pytest.mark.parametrize("metric", METRICS)
@pytest.mark.parametrize("side", Side)
def test_all_entities(metric: Metric, side: Side) -> None:
    scorer = make(metric)
    h, r, t = POSITIVES.unbind(1)
    scores = scorer.score_all(h if side is Side.tail else t, r, side)
    torch.testing.assert_close(scores, of_all(scorer, side))


@pytest.mark.parametrize("metric", METRICS)
def test_ranking(metric: Metric) -> None:
    scorer = make(metric)
    triples = POSITIVES.numpy().astype(np.int32)
    ranks = rank(scorer, triples, KnownTriples([triples], N, R))
    for side in Side:
        answers = POSITIVES[:, 2:] if side is Side.tail else POSITIVES[:, :1]
        expected, unweighted = (
            1 + (scores > scores.gather(1, answers)).sum(1)
            for scores in (of_all(scorer, side), of_all(scorer, side, UNWEIGHTED))
        )
        assert ranks[side].optimistic.tolist() == expected.tolist()
        assert not torch.equal(expected, unweighted)  # so that ignored weights would show


def test_matrix_products_of_shared_negatives() -> None:
    scorer = make(Metric.dot)
    ids = torch.tensor([[0, 2, 5], [1, 1, 6]])
    corrupted_side = torch.tensor([0, 1], dtype=torch.int8)
    # Chunks of three positives and of one.
    shared = SharedNegatives(ids, corrupted_side, torch.ones(4, 3, dtype=torch.bool), chunk=3)
    positive, negative, _ = negative_scores(scorer, POSITIVES, shared)
    chunk_of = torch.tensor([0, 0, 0, 1])
    sides = corrupted_side[chunk_of, None].expand(4, 3)
    torch.testing.assert_close(negative, of_candidates(scorer, ids[chunk_of], sides))
    expected = of_all(scorer, Side.tail).gather(1, POSITIVES[:, 2:])[:, 0]
    torch.testing.assert_close(positive, expected)
