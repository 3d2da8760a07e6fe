from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.ops import SideChoice
from mmkgc_cli.sampling.contract import Candidates, SamplerConfig, SamplingTask
from mmkgc_cli.sampling.samplers.filtered import FilteredSampler
from mmkgc_cli.scoring import Scorer, ScorerConfig, Side
from tests.conftest import random_graph

# The samplers here do not use it.
NO_SCORER = Scorer(ScorerConfig(), 0, 0, torch.Generator())


def task_of(
    triples: torch.Tensor,
    n: int,
    r: int,
    mode: Literal["bernoulli", "uniform"],
    negatives: int,
    seed: int = 0,
) -> SamplingTask:
    return SamplingTask(triples, n, r, negatives, mode, SideChoice.per_negative, seed)


def negatives_of(sampler: FilteredSampler, positives: torch.Tensor) -> Candidates:
    """The negatives of the sampler, without the column of the positives."""
    negatives = sampler.draw(positives, NO_SCORER)
    assert negatives.mask is not None
    ids, sides, mask = (
        tensor[:, 1:] for tensor in (negatives.ids, negatives.corrupted_side, negatives.mask)
    )
    return Candidates(ids, sides, mask, order=negatives.order)


def draw(positives: torch.Tensor, task: SamplingTask) -> Candidates:
    return negatives_of(FilteredSampler(SamplerConfig(), task, NO_SCORER), positives)


@given(
    seed=st.integers(0, 100), n=st.integers(1, 9), mode=st.sampled_from(["bernoulli", "uniform"])
)
def test_the_mask_is_false_exactly_at_train_triples(
    seed: int, n: int, mode: Literal["bernoulli", "uniform"]
) -> None:
    # A third of all possible triples are true, so that samples hit them.
    graph = random_graph(8, 2, 40, seed)
    triples = torch.from_numpy(graph.train).long()
    true = {tuple(row) for row in triples.tolist()}
    negatives = draw(triples, task_of(triples, 8, 2, mode, n, seed))
    assert negatives.mask is not None
    assert (
        negatives.ids.shape
        == negatives.corrupted_side.shape
        == negatives.mask.shape
        == (len(triples), n)
    )
    for (h, r, t), ids, sides, mask in zip(
        triples.tolist(), negatives.ids.tolist(), negatives.corrupted_side.tolist(),
        negatives.mask.tolist(), strict=True,
    ):  # fmt: skip
        for entity, side, ok in zip(ids, sides, mask, strict=True):
            corrupted = (h, r, entity) if side == Side.tail else (entity, r, t)
            assert ok == (corrupted not in true)


def test_train_triples_that_cannot_be_avoided_are_masked() -> None:
    everything = torch.cartesian_prod(torch.arange(3), torch.arange(1), torch.arange(3))
    mask = draw(everything, task_of(everything, 3, 1, "uniform", 4)).mask
    assert mask is not None
    assert not mask.any()


def test_train_triples_are_replaced_by_other_negatives() -> None:
    # 9 of 10 tails are true: without further rounds, nine in ten negatives would be masked.
    rows = torch.stack([torch.zeros(9), torch.zeros(9), torch.arange(9)], 1).long()
    negatives = draw(rows, task_of(rows, 10, 1, "uniform", 200))
    tails = negatives.corrupted_side == Side.tail
    assert negatives.mask is not None
    assert negatives.mask[tails].float().mean() > 0.25


def test_bernoulli_prefers_the_side_with_more_answers() -> None:
    # Relation 0: one head, 30 tails (tph 30, hpt 1); relation 1 the other way round.
    rows = [(0, 0, i) for i in range(1, 31)] + [(i, 1, 0) for i in range(1, 31)]
    triples = torch.tensor(rows)
    negatives = draw(triples, task_of(triples, 31, 2, "bernoulli", 200))
    share = (negatives.corrupted_side == Side.head).float().mean(1)
    assert share[:30].mean().item() == pytest.approx(30 / 31, abs=0.01)
    assert share[30:].mean().item() == pytest.approx(1 / 31, abs=0.01)
    even = draw(triples, task_of(triples, 31, 2, "uniform", 200))
    assert (even.corrupted_side == Side.head).float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_entities_are_uniform() -> None:
    triples = torch.tensor([[0, 0, 1]])
    negatives = draw(triples.expand(500, 3), task_of(triples, 10, 1, "uniform", 20))
    counts = torch.bincount(negatives.ids.flatten(), minlength=10) / 10_000
    assert (counts - 0.1).abs().max() < 0.06  # the true tail and head are rarer


def test_the_same_seed_gives_the_same_negatives() -> None:
    triples = torch.from_numpy(random_graph(20, 3, 100, 0).train).long()
    a, b, c = (draw(triples, task_of(triples, 20, 3, "bernoulli", 5, s)) for s in (1, 1, 2))
    assert torch.equal(a.ids, b.ids)
    assert torch.equal(a.corrupted_side, b.corrupted_side)
    assert not torch.equal(a.ids, c.ids)


def test_negatives_depend_on_the_step_only() -> None:
    triples = torch.from_numpy(random_graph(20, 3, 100, 0).train).long()
    sampler = FilteredSampler(SamplerConfig(), task_of(triples, 20, 3, "bernoulli", 5), NO_SCORER)
    negatives = []
    for step in (0, 1, 0):
        sampler.step = step
        negatives.append(negatives_of(sampler, triples).ids)
    assert not torch.equal(negatives[0], negatives[1])
    assert torch.equal(negatives[0], negatives[2])


def test_the_positive_comes_first() -> None:
    triples = torch.from_numpy(random_graph(20, 3, 100, 0).train).long()
    task = task_of(triples, 20, 3, "uniform", 5)
    negatives = FilteredSampler(SamplerConfig(), task, NO_SCORER).draw(triples, NO_SCORER)
    assert torch.equal(negatives.ids[:, 0], triples[:, 2])
    assert (negatives.corrupted_side[:, 0] == Side.tail).all()
    assert negatives.mask is not None
    assert negatives.mask[:, 0].all()
    assert negatives.order is not None
    assert torch.equal(negatives.order, negatives.ids.flatten().argsort(stable=True))
