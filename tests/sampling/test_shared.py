from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkgc_cli.errors import DataError
from mmkgc_cli.ops import SideChoice
from mmkgc_cli.sampling.contract import Pools, SamplingTask
from mmkgc_cli.sampling.samplers.shared import SharedConfig, SharedNegatives
from mmkgc_cli.scoring import Scorer, ScorerConfig, Side
from tests.conftest import random_graph

NO_SCORER = Scorer(ScorerConfig(), 0, 0, torch.Generator())
Mode = Literal["bernoulli", "uniform"]


def sampler_of(
    triples: Tensor,
    n: int,
    r: int,
    mode: Mode = "uniform",
    negatives: int = 5,
    chunk: int = 7,
    seed: int = 0,
    choice: SideChoice = SideChoice.per_negative,
) -> SharedNegatives:
    task = SamplingTask(triples, n, r, negatives, mode, choice, seed)
    return SharedNegatives(SharedConfig(chunk=chunk), task, NO_SCORER)


def draw(sampler: SharedNegatives, positives: Tensor) -> Pools:
    return sampler.draw(positives, NO_SCORER)


@given(
    seed=st.integers(0, 100),
    n=st.integers(0, 9),
    chunk=st.integers(1, 50),
    mode=st.sampled_from(["bernoulli", "uniform"]),
)
def test_what_would_be_a_train_triple_is_masked_and_nothing_else(
    seed: int, n: int, chunk: int, mode: Mode
) -> None:
    triples = torch.from_numpy(random_graph(8, 2, 40, seed).train).long()
    true = {tuple(row) for row in triples.tolist()}
    drawn = draw(sampler_of(triples, 8, 2, mode, n, chunk, seed), triples)
    assert drawn.entities.shape == (-(-len(triples) // chunk), n)
    assert drawn.side.shape == (len(drawn.entities),)
    for i, (h, r, t) in enumerate(triples.tolist()):
        side = drawn.side[i // chunk]
        for entity, ok in zip(
            drawn.entities[i // chunk].tolist(), drawn.usable[i].tolist(), strict=True
        ):
            corrupted = (h, r, entity) if side == Side.tail else (entity, r, t)
            assert ok == (corrupted not in true)


def test_each_positive_of_a_chunk_gets_its_pool() -> None:
    triples = torch.from_numpy(random_graph(20, 3, 100, 0).train).long()[:17]
    drawn = draw(sampler_of(triples, 20, 3), triples)
    every = drawn.negatives(triples)
    assert torch.equal(every.entities[:, 0], triples[:, 2])
    assert (every.side[:, 0] == Side.tail).all()
    assert every.usable[:, 0].all()
    for i in range(17):
        assert torch.equal(every.entities[i, 1:], drawn.entities[i // 7])
        assert (every.side[i, 1:] == drawn.side[i // 7]).all()
    assert torch.equal(every.usable[:, 1:], drawn.usable)


def test_entities_and_sides_are_drawn_evenly() -> None:
    triples = torch.tensor([[0, 0, 1]])
    drawn = draw(sampler_of(triples, 10, 1, negatives=20, chunk=1), triples.expand(2000, 3))
    counts = torch.bincount(drawn.entities.flatten(), minlength=10) / 40_000
    assert (counts - 0.1).abs().max() < 0.01
    assert drawn.side.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_side_of_a_chunk_goes_by_the_mean_over_its_positives() -> None:
    # Relation 0: one head, 30 tails (tph 30, hpt 1); relation 1 the other way round.
    rows = [(0, 0, i) for i in range(1, 31)] + [(i, 1, 0) for i in range(1, 31)]
    triples = torch.tensor(rows)
    mixed = torch.stack([triples[0], triples[0], triples[30]]).repeat(3000, 1)
    sampler = sampler_of(triples, 31, 2, "bernoulli", 1, 3)
    share = (30 / 31 + 30 / 31 + 1 / 31) / 3
    assert draw(sampler, mixed).side.float().mean().item() == pytest.approx(share, abs=0.03)
    # The last chunk has one positive, of relation 1.
    sides = []
    for sampler.step in range(300):
        sides.append(draw(sampler, torch.cat([triples[:3], triples[30:31]])).side[-1])
    assert torch.stack(sides).float().mean().item() == pytest.approx(1 / 31, abs=0.04)


def test_chunks_take_turns_over_batches_too() -> None:
    triples = torch.from_numpy(random_graph(20, 3, 100, 0).train).long()
    sampler = sampler_of(triples, 20, 3, choice=SideChoice.alternating)
    assert draw(sampler, triples[:21]).side.tolist() == [0, 1, 0]
    sampler.step = 1
    assert draw(sampler, triples[:21]).side.tolist() == [1, 0, 1]


def test_sides_per_positive_are_refused() -> None:
    with pytest.raises(DataError, match="'shared' draws a side for each chunk, not per positive"):
        sampler_of(torch.tensor([[0, 0, 1]]), 2, 1, choice=SideChoice.per_positive)


def test_a_draw_is_a_function_of_seed_and_step() -> None:
    triples = torch.from_numpy(random_graph(50, 3, 100, 0).train).long()
    drawn = []
    for seed, step in ((0, 0), (0, 0), (0, 1), (1, 0)):
        sampler = sampler_of(triples, 50, 3, seed=seed)
        sampler.step = step
        drawn.append(draw(sampler, triples).entities)
    assert torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
    assert not torch.equal(drawn[0], drawn[3])
