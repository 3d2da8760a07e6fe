from __future__ import annotations

from typing import Literal

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkgc_cli.errors import DataError
from mmkgc_cli.ops import SideChoice
from mmkgc_cli.sampling.contract import SamplingTask, SharedNegatives
from mmkgc_cli.sampling.samplers.shared import SharedConfig, SharedSampler
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
) -> SharedSampler:
    task = SamplingTask(triples, n, r, negatives, mode, choice, seed)
    return SharedSampler(SharedConfig(chunk=chunk), task, NO_SCORER)


def draw(sampler: SharedSampler, positives: Tensor) -> SharedNegatives:
    return sampler.draw(positives, NO_SCORER)


@given(
    seed=st.integers(0, 100),
    n=st.integers(0, 9),
    chunk=st.integers(1, 50),
    mode=st.sampled_from(["bernoulli", "uniform"]),
)
def test_the_mask_is_false_exactly_at_train_triples(
    seed: int, n: int, chunk: int, mode: Mode
) -> None:
    triples = torch.from_numpy(random_graph(8, 2, 40, seed).train).long()
    true = {tuple(row) for row in triples.tolist()}
    negatives = draw(sampler_of(triples, 8, 2, mode, n, chunk, seed), triples)
    assert negatives.ids.shape == (-(-len(triples) // chunk), n)
    assert negatives.corrupted_side.shape == (len(negatives.ids),)
    for i, (h, r, t) in enumerate(triples.tolist()):
        side = negatives.corrupted_side[i // chunk]
        for entity, ok in zip(
            negatives.ids[i // chunk].tolist(), negatives.mask[i].tolist(), strict=True
        ):
            corrupted = (h, r, entity) if side == Side.tail else (entity, r, t)
            assert ok == (corrupted not in true)


def test_each_positive_of_a_chunk_gets_the_negatives_of_the_chunk() -> None:
    triples = torch.from_numpy(random_graph(20, 3, 100, 0).train).long()[:17]
    negatives = draw(sampler_of(triples, 20, 3), triples)
    expanded = negatives.expand(triples)
    assert torch.equal(expanded.ids[:, 0], triples[:, 2])
    assert (expanded.corrupted_side[:, 0] == Side.tail).all()
    assert expanded.mask is not None
    assert expanded.mask[:, 0].all()
    for i in range(17):
        assert torch.equal(expanded.ids[i, 1:], negatives.ids[i // 7])
        assert (expanded.corrupted_side[i, 1:] == negatives.corrupted_side[i // 7]).all()
    assert torch.equal(expanded.mask[:, 1:], negatives.mask)


def test_entities_and_sides_are_uniform() -> None:
    triples = torch.tensor([[0, 0, 1]])
    negatives = draw(sampler_of(triples, 10, 1, negatives=20, chunk=1), triples.expand(2000, 3))
    counts = torch.bincount(negatives.ids.flatten(), minlength=10) / 40_000
    assert (counts - 0.1).abs().max() < 0.01
    assert negatives.corrupted_side.float().mean().item() == pytest.approx(0.5, abs=0.05)


def test_the_head_probability_of_a_chunk_is_the_mean_over_its_positives() -> None:
    # Relation 0: one head, 30 tails (tph 30, hpt 1); relation 1 the other way round.
    rows = [(0, 0, i) for i in range(1, 31)] + [(i, 1, 0) for i in range(1, 31)]
    triples = torch.tensor(rows)
    mixed = torch.stack([triples[0], triples[0], triples[30]]).repeat(3000, 1)
    sampler = sampler_of(triples, 31, 2, "bernoulli", 1, 3)
    share = (30 / 31 + 30 / 31 + 1 / 31) / 3
    assert draw(sampler, mixed).corrupted_side.float().mean().item() == pytest.approx(
        share, abs=0.03
    )
    # The last chunk has one positive, of relation 1.
    sides = []
    for sampler.step in range(300):
        sides.append(draw(sampler, torch.cat([triples[:3], triples[30:31]])).corrupted_side[-1])
    assert torch.stack(sides).float().mean().item() == pytest.approx(1 / 31, abs=0.04)


def test_chunks_alternate_across_batches() -> None:
    triples = torch.from_numpy(random_graph(20, 3, 100, 0).train).long()
    sampler = sampler_of(triples, 20, 3, choice=SideChoice.alternating)
    assert draw(sampler, triples[:21]).corrupted_side.tolist() == [0, 1, 0]
    sampler.step = 1
    assert draw(sampler, triples[:21]).corrupted_side.tolist() == [1, 0, 1]


def test_sides_per_positive_are_refused() -> None:
    with pytest.raises(
        DataError, match="'shared' chooses a side per chunk, got per-positive; remove"
    ):
        sampler_of(torch.tensor([[0, 0, 1]]), 2, 1, choice=SideChoice.per_positive)


def test_negatives_are_a_function_of_seed_and_step() -> None:
    triples = torch.from_numpy(random_graph(50, 3, 100, 0).train).long()
    negatives = []
    for seed, step in ((0, 0), (0, 0), (0, 1), (1, 0)):
        sampler = sampler_of(triples, 50, 3, seed=seed)
        sampler.step = step
        negatives.append(draw(sampler, triples).ids)
    assert torch.equal(negatives[0], negatives[1])
    assert not torch.equal(negatives[0], negatives[2])
    assert not torch.equal(negatives[0], negatives[3])
