from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.completion.measuring import HeldOutVectors


def normal(n: int, width: int, seed: int) -> torch.Tensor:
    values = np.random.default_rng(seed).standard_normal((n, width))
    return torch.from_numpy(values.astype(np.float32))


@given(n=st.integers(1, 30), width=st.integers(2, 6), seed=st.integers(0, 99))
def test_measures_equal_brute_force(n: int, width: int, seed: int) -> None:
    true, generated, mean = (
        normal(n, width, seed),
        normal(n, width, seed + 1),
        normal(1, width, seed + 2)[0],
    )
    measures = HeldOutVectors(true, mean).measure(generated)
    v, g, m = (x.double().numpy() for x in (true, generated, mean))

    def cosine(a: np.ndarray, b: np.ndarray) -> float:
        return float(a @ b / np.linalg.norm(a) / np.linalg.norm(b))

    scores = np.array([[cosine(a - m, b - m) for b in v] for a in g])
    ranks = np.array([1 + (row > row[i]).sum() for i, row in enumerate(scores)])
    assert measures.cosine == pytest.approx(
        np.mean([cosine(a, b) for a, b in zip(g, v, strict=True)])
    )
    assert measures.centred_cosine == pytest.approx(scores.diagonal().mean())
    assert measures.hits10 == pytest.approx((ranks <= 10).mean())
    assert measures.mrr == pytest.approx((1 / ranks).mean())

    def mean_distance(a: np.ndarray, b: np.ndarray) -> float:
        return float(np.mean([[np.linalg.norm(x - y) for y in b] for x in a]))

    distance = 2 * mean_distance(g, v) - mean_distance(g, g) - mean_distance(v, v)
    assert measures.energy == pytest.approx(distance / (2 * mean_distance(g, v)), abs=1e-6)


def test_true_vectors_get_the_best_measures() -> None:
    true = normal(700, 8, 0)
    measures = HeldOutVectors(true, torch.zeros(8)).measure(true)
    assert (measures.hits10, measures.mrr) == (1, 1)
    assert measures.cosine == pytest.approx(1)
    assert measures.centred_cosine == pytest.approx(1)
    assert measures.energy == pytest.approx(0, abs=1e-6)


@pytest.mark.parametrize("n", [40, 700])
def test_a_constant_retrieves_at_chance(n: int) -> None:
    true = normal(n, 8, 0)
    measures = HeldOutVectors(true, torch.zeros(8)).measure(torch.ones(n, 8))
    # All queries share one ranking, so every rank occurs once.
    assert measures.hits10 == pytest.approx(10 / n)
    assert measures.mrr == pytest.approx((1 / np.arange(1, n + 1)).mean())


def test_the_mean_vector_has_zero_hits() -> None:
    true = normal(41, 8, 0)
    mean = normal(1, 8, 5)[0]
    near = mean.repeat(41, 1) + 1e-8 * normal(41, 8, 6)  # a rounding error
    measures = HeldOutVectors(true, mean).measure(near)
    assert (measures.centred_cosine, measures.hits10) == (0, 0)
    assert measures.mrr == pytest.approx(1 / 21)


def test_equal_true_vectors_get_their_mean_rank() -> None:
    true = normal(1, 4, 0).repeat(30, 1)
    measures = HeldOutVectors(true, torch.zeros(4)).measure(true)
    assert measures.mrr == pytest.approx(1 / 15.5)
    assert measures.hits10 == 0


def test_energy_of_two_different_points_is_one() -> None:
    true, generated = torch.ones(5, 3), torch.zeros(5, 3)
    assert HeldOutVectors(true, torch.zeros(3)).measure(generated).energy == pytest.approx(1)
    # Half of the mass moves by 1: (2 * 1/2 - 1/2 - 0) / (2 * 1/2).
    half = torch.tensor([[0.0], [1.0]])
    assert HeldOutVectors(half, torch.zeros(1)).measure(torch.zeros(2, 1)).energy == pytest.approx(
        0.5
    )
