from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mmkgc_cli.errors import UsageError
from mmkgc_cli.scoring import Features, Scorer, Side, load_scorer, scorer_names
from tests.scoring.small import DistMult, TransE

N, R = 7, 3


def make(name: str) -> Scorer:
    small = {"distmult": DistMult, "transe": TransE}
    scorer_class: Any = small.get(name) or load_scorer(name)
    config = {"dim": 5} if "dim" in scorer_class.Config.model_fields else {}
    rng = torch.Generator().manual_seed(0)
    told = {
        modality: Features(torch.randn(N, 4, generator=rng), torch.ones(N, dtype=torch.bool))
        for modality in scorer_class.modalities
    }
    features: Any = {"features": told} if told else {}
    scorer: Scorer = scorer_class(scorer_class.Config(**config), N, R, rng, **features)
    triples = torch.randint(0, R, (40, 3), generator=rng)
    scorer.fit(triples)
    return scorer.double().eval()


TWO_WAY = [name for name in scorer_names() if load_scorer(name).two_way]


@pytest.mark.parametrize("name", [*TWO_WAY, "distmult", "transe"])
def test_triple_tail_and_head_scores_agree(name: str) -> None:
    scorer = make(name)
    triples = torch.cartesian_prod(torch.arange(N), torch.arange(R), torch.arange(N))
    h, r, t = triples.unbind(1)
    triple = scorer.score(triples)
    table = scorer.candidates(None)[None]
    tails = scorer.score_vectors(scorer.query(h, r, Side.tail)[:, None], table)
    heads = scorer.score_vectors(scorer.query(t, r, Side.head)[:, None], table)
    torch.testing.assert_close(tails.gather(1, t[:, None])[:, 0], triple, atol=1e-9, rtol=0)
    torch.testing.assert_close(heads.gather(1, h[:, None])[:, 0], triple, atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "name",
    [
        *(n for n in scorer_names() if load_scorer(n).two_way and not load_scorer(n).per_relation),
        "distmult",
        "transe",
    ],
)
def test_sampled_scores_and_gradients_are_those_of_the_corrupted_triples(name: str) -> None:
    scorer = make(name)
    rng = torch.Generator().manual_seed(1)
    triples = torch.cartesian_prod(torch.arange(N), torch.arange(R), torch.arange(N))[::5]
    h, r, t = triples.unbind(1)
    ids = torch.randint(N, (len(triples), 6), generator=rng)
    side = torch.randint(2, ids.shape, generator=rng, dtype=torch.int8)
    order = ids.flatten().argsort(stable=True)
    sampled = scorer.score_sampled(h, r, t, ids, side, order)
    corrupted = torch.stack(
        [
            torch.where(side == Side.head, ids, h[:, None]),
            r[:, None].expand_as(ids),
            torch.where(side == Side.tail, ids, t[:, None]),
        ],
        -1,
    )
    weights = torch.linspace(-1, 1, ids.numel(), dtype=torch.float64)
    parameters = list(scorer.parameters())
    paths = [
        sampled.flatten(),
        Scorer.score_sampled(scorer, h, r, t, ids, side).flatten(),
        scorer.score(corrupted.view(-1, 3)),
    ]
    grads = [torch.autograd.grad(scores, parameters, weights) for scores in paths]
    for scores, grad in zip(paths[1:], grads[1:], strict=True):
        torch.testing.assert_close(scores, paths[0], atol=1e-9, rtol=0)
        for a, b in zip(grad, grads[0], strict=True):
            torch.testing.assert_close(a, b, atol=1e-9, rtol=0)


@pytest.mark.parametrize("name", scorer_names())
def test_every_scorer_cites_its_source_and_names_its_metric(name: str) -> None:
    scorer_class = load_scorer(name)
    assert len(scorer_class.citation) > 20
    assert scorer_class.metric is not None


@pytest.mark.parametrize("name", scorer_names())
def test_candidates_of_some_are_rows_of_the_candidates_of_all(name: str) -> None:
    scorer = make(name)
    extra = (1, Side.head) if scorer.per_relation else ()
    some = torch.tensor([4, 0, 4])
    assert torch.equal(scorer.candidates(some, *extra), scorer.candidates(None, *extra)[some])


def test_rotate_scores_by_closed_form() -> None:
    scorer_class = load_scorer("rotate")
    scorer = scorer_class(scorer_class.Config(dim=2, margin=9), 2, 1, torch.Generator())
    with torch.no_grad():
        # h = (1, 2i), r = (90 degrees, 180 degrees), t = (1, 0): h r = (i, -2i).
        scorer.entities.copy_(torch.tensor([[1.0, 0.0, 0.0, 2.0], [1.0, 0.0, 0.0, 0.0]]))
        scorer.phases.copy_(torch.tensor([[math.pi / 2, math.pi]]))
    score = scorer.score(torch.tensor([[0, 0, 1]]))
    assert score.item() == pytest.approx(9 - math.sqrt(2) - 2, abs=1e-5)


def test_rotate_is_reproducible_and_stays_within_its_range() -> None:
    scorer_class = load_scorer("rotate")
    a, b = (
        scorer_class(scorer_class.Config(dim=8), N, R, torch.Generator().manual_seed(3))
        for _ in range(2)
    )
    for (name, x), (_, y) in zip(a.named_parameters(), b.named_parameters(), strict=True):
        assert torch.equal(x, y), name
    assert a.entities.abs().max() <= 11 / 8
    assert a.phases.abs().max() <= math.pi


def test_frequency_counts_each_side_of_each_relation() -> None:
    scorer_class = load_scorer("frequency")
    scorer = scorer_class(scorer_class.Config(), 4, 2, torch.Generator())
    scorer.fit(torch.tensor([[0, 0, 1], [2, 0, 1], [2, 1, 3], [0, 0, 3]]))
    assert scorer.candidates(None, 0, Side.tail)[:, 0].tolist() == [0, 2, 0, 1]
    assert scorer.candidates(None, 0, Side.head)[:, 0].tolist() == [2, 0, 1, 0]
    assert scorer.candidates(None, 1, Side.tail)[:, 0].tolist() == [0, 0, 0, 1]
    with pytest.raises(ValueError, match="needs the relation and the side"):
        scorer.candidates(None)


def test_an_unknown_scorer_gets_the_nearest_name() -> None:
    with pytest.raises(UsageError, match="no scorer is called 'rotat'; did you mean 'rotate'"):
        load_scorer("rotat")
    with pytest.raises(UsageError, match="known: complex, .*rotate"):
        load_scorer("zzz")
