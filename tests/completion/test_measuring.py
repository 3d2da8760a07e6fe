from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.completion.measuring import Truth


def draw(n: int, width: int, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).standard_normal((n, width))
    return torch.from_numpy(values.astype(np.float32))


@given(n=st.integers(1, 30), width=st.integers(2, 6), seed=st.integers(0, 99))
def test_measures_are_those_of_brute_force(n: int, width: int, seed: int) -> None:
    true, made, mean = draw(n, width, seed), draw(n, width, seed + 1), draw(1, width, seed + 2)[0]
    found = Truth(true, mean).measure(made)
    v, g, m = (x.double().numpy() for x in (true, made, mean))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    scores = np.array([[cosine(a - m, b - m) for b in v] for a in g])
    ranks = np.array([1 + (row > row[i]).sum() for i, row in enumerate(scores)])
    assert found.cosine == pytest.approx(np.mean([cosine(a, b) for a, b in zip(g, v, strict=True)]))
    assert found.centred_cosine == pytest.approx(scores.diagonal().mean())
    assert found.hits10 == pytest.approx((ranks <= 10).mean())
    assert found.mrr == pytest.approx((1 / ranks).mean())

    def apart(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([[np.linalg.norm(x - y) for y in b] for x in a]))

    distance = 2 * apart(g, v) - apart(g, g) - apart(v, v)
    assert found.energy == pytest.approx(distance / (2 * apart(g, v)), abs=1e-6)


def test_the_true_vectors_are_perfect() -> None:
    true = draw(700, 8, 0)
    found = Truth(true, torch.zeros(8)).measure(true)
    assert (found.hits10, found.mrr) == (1, 1)
    assert found.cosine == pytest.approx(1)
    assert found.centred_cosine == pytest.approx(1)
    assert found.energy == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("n", [40, 700])
def test_a_constant_retrieves_at_chance(n: int) -> None:
    true = draw(n, 8, 0)
    found = Truth(true, torch.zeros(8)).measure(torch.ones(n, 8))
    # All queries have one ranking, in which every rank comes once.
    assert found.hits10 == pytest.approx(10 / n)
    assert found.mrr == pytest.approx((1 / np.arange(1, n + 1)).mean())


def test_the_mean_ties_with_everything_and_retrieves_nothing() -> None:
    true = draw(41, 8, 0)
    mean = draw(1, 8, 5)[0]
    near = mean.repeat(41, 1) + 1e-8 * draw(41, 8, 6)  # as rounding leaves it
    found = Truth(true, mean).measure(near)
    assert (found.centred_cosine, found.hits10) == (0, 0)
    assert found.mrr == pytest.approx(1 / 21)


def test_equal_true_vectors_share_their_rank() -> None:
    true = draw(1, 4, 0).repeat(30, 1)
    found = Truth(true, torch.zeros(4)).measure(true)
    assert found.mrr == pytest.approx(1 / 15.5)
    assert found.hits10 == 0


def test_two_points_are_as_far_as_distributions_get() -> None:
    true, made = torch.ones(5, 3), torch.zeros(5, 3)
    assert Truth(true, torch.zeros(3)).measure(made).energy == pytest.approx(1)
    # Half of the mass moved by 1: 2 * 1/2 - 1/2 - 0, over twice 1/2.
    half = torch.tensor([[0.0], [1.0]])
    assert Truth(half, torch.zeros(1)).measure(torch.zeros(2, 1)).energy == pytest.approx(0.5)
