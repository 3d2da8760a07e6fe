from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.ops import SideChoice
from mmkgc_cli.sampling.contract import Negatives, SamplerConfig, SamplingTask
from mmkgc_cli.sampling.samplers.filtered import FilteredNegatives
from mmkgc_cli.scoring import Scorer, ScorerConfig, Side
from tests.conftest import random_graph

# What is drawn does not depend on it.
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


def drawn_by(sampler: FilteredNegatives, positives: torch.Tensor) -> Negatives:
    """A draw of the sampler without the column of the positives."""
    drawn = sampler.draw(positives, NO_SCORER)
    rest = (of[:, 1:] for of in (drawn.entities, drawn.side, drawn.usable))
    return Negatives(*rest, order=drawn.order)


def draw(positives: torch.Tensor, task: SamplingTask) -> Negatives:
    return drawn_by(FilteredNegatives(SamplerConfig(), task, NO_SCORER), positives)


@given(
    seed=st.integers(0, 100), n=st.integers(1, 9), mode=st.sampled_from(["bernoulli", "uniform"])
)
def test_usable_negatives_are_never_train_triples(
    seed: int, n: int, mode: Literal["bernoulli", "uniform"]
) -> None:
    # A third of all possible triples are true, so that draws do hit them.
    graph = random_graph(8, 2, 40, seed)
    triples = torch.from_numpy(graph.train).long()
    true = {tuple(row) for row in triples.tolist()}
    drawn = draw(triples, task_of(triples, 8, 2, mode, n, seed))
    assert drawn.entities.shape == drawn.side.shape == drawn.usable.shape == (len(triples), n)
    for (h, r, t), entities, sides, usable in zip(
        triples.tolist(), drawn.entities.tolist(), drawn.side.tolist(), drawn.usable.tolist(),
        strict=True,
    ):  # fmt: skip
        for entity, side, ok in zip(entities, sides, usable, strict=True):
            corrupted = (h, r, entity) if side == Side.tail else (entity, r, t)
            assert ok == (corrupted not in true)


def test_what_cannot_be_avoided_is_masked() -> None:
    everything = torch.cartesian_prod(torch.arange(3), torch.arange(1), torch.arange(3))
    assert not draw(everything, task_of(everything, 3, 1, "uniform", 4)).usable.any()


def test_draws_that_hit_are_drawn_again() -> None:
    # 9 of 10 tails are true: without repeats nine in ten draws would be masked.
    rows = torch.stack([torch.zeros(9), torch.zeros(9), torch.arange(9)], 1).long()
    drawn = draw(rows, task_of(rows, 10, 1, "uniform", 200))
    tails = drawn.side == Side.tail
    assert drawn.usable[tails].float().mean() > 0.25


def test_bernoulli_replaces_the_side_that_is_seen_more_often_less() -> None:
    # Relation 0: one head, 30 tails (tph 30, hpt 1); relation 1 the other way round.
    rows = [(0, 0, i) for i in range(1, 31)] + [(i, 1, 0) for i in range(1, 31)]
    triples = torch.tensor(rows)
    drawn = draw(triples, task_of(triples, 31, 2, "bernoulli", 200))
    share = (drawn.side == Side.head).float().mean(1)
    assert share[:30].mean().item() == pytest.approx(30 / 31, abs=0.01)
    assert share[30:].mean().item() == pytest.approx(1 / 31, abs=0.01)
    even = draw(triples, task_of(triples, 31, 2, "uniform", 200))
    assert (even.side == Side.head).float().mean().item() == pytest.approx(0.5, abs=0.02)


def test_entities_are_drawn_evenly() -> None:
    triples = torch.tensor([[0, 0, 1]])
    drawn = draw(triples.expand(500, 3), task_of(triples, 10, 1, "uniform", 20))
    counts = torch.bincount(drawn.entities.flatten(), minlength=10) / 10_000
    assert (counts - 0.1).abs().max() < 0.06  # the true tail and head are drawn less


def test_the_same_seed_draws_the_same_negatives() -> None:
    triples = torch.from_numpy(random_graph(20, 3, 100, 0).train).long()
    a, b, c = (draw(triples, task_of(triples, 20, 3, "bernoulli", 5, s)) for s in (1, 1, 2))
    assert torch.equal(a.entities, b.entities)
    assert torch.equal(a.side, b.side)
    assert not torch.equal(a.entities, c.entities)


def test_every_batch_is_another_draw_and_can_be_drawn_again() -> None:
    triples = torch.from_numpy(random_graph(20, 3, 100, 0).train).long()
    sampler = FilteredNegatives(SamplerConfig(), task_of(triples, 20, 3, "bernoulli", 5), NO_SCORER)
    drawn = []
    for step in (0, 1, 0):
        sampler.step = step
        drawn.append(drawn_by(sampler, triples).entities)
    assert not torch.equal(drawn[0], drawn[1])
    assert torch.equal(drawn[0], drawn[2])


def test_the_positive_comes_first() -> None:
    triples = torch.from_numpy(random_graph(20, 3, 100, 0).train).long()
    task = task_of(triples, 20, 3, "uniform", 5)
    drawn = FilteredNegatives(SamplerConfig(), task, NO_SCORER).draw(triples, NO_SCORER)
    assert torch.equal(drawn.entities[:, 0], triples[:, 2])
    assert (drawn.side[:, 0] == Side.tail).all()
    assert drawn.usable[:, 0].all()
    assert drawn.order is not None
    assert torch.equal(drawn.order, drawn.entities.flatten().argsort(stable=True))
