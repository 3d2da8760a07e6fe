from __future__ import annotations

import numpy as np
import pytest
import torch

from mmkgc_cli.completion.regression import Moments, regressors, ridge
from tests.completion.small import communities, graph_with, problem_of


def test_coefficients_are_those_of_least_squares_with_the_penalty_as_rows() -> None:
    rng = np.random.default_rng(0)
    groups = [torch.from_numpy(rng.standard_normal((50, k)).astype(np.float32)) for k in (4, 3)]
    values = torch.from_numpy(rng.standard_normal((50, 6)).astype(np.float32))
    rows = torch.arange(5, 45)
    moments = Moments.of(groups, values, rows)
    found = moments.solve([0.3, 2.0])
    x = torch.cat(groups, dim=1)[rows].double()
    y = values[rows].double()
    x, y = x - x.mean(0), y - y.mean(0)
    scale = [0.3 * x[:, :4].square().sum(0).mean(), 2.0 * x[:, 4:].square().sum(0).mean()]
    penalty = torch.stack([scale[0]] * 4 + [scale[1]] * 3)
    stacked = torch.cat([x, torch.diag(penalty.sqrt())])
    expected = torch.linalg.lstsq(stacked, torch.cat([y, torch.zeros(7, 6)])).solution
    assert torch.allclose(found, expected, atol=1e-10)


def test_regressors_are_counts_neighbours_and_contexts_without_the_own_vector() -> None:
    # e0, e1 and e2 all point at e3 under r0; e2 and e4 at e5 under r1.
    graph = graph_with(6, [(0, 0, 3), (1, 0, 3), (2, 0, 3), (2, 1, 5), (4, 1, 5)])
    values = np.array([[2.0], [4], [9], [1], [6], [0]])
    problem = problem_of(graph, values, [True, True, False, True, True, False])
    counts, neighbours, contexts = regressors(problem)
    mean = (2 + 4 + 1 + 6) / 4
    heads = counts[:, [0, 1, 2, 3]]  # as tail of r0, r1, as head of r0, r1: all equally frequent
    assert torch.allclose(heads[2], torch.tensor([0.0, 0, 1, 1]) * np.log(2))
    assert torch.allclose(heads[3], torch.tensor([1.0, 0, 0, 0]) * np.log(4))
    assert neighbours[2].item() == pytest.approx(1 - mean)  # e3; e5 has no vector
    assert neighbours[3].item() == pytest.approx(3 - mean)  # e0 and e1
    assert neighbours[5].item() == pytest.approx(6 - mean)
    assert contexts[0].item() == pytest.approx(4 - mean)  # e1, not itself
    assert contexts[2].item() == pytest.approx(((2 + 4) / 2 + 6) / 2 - mean)
    assert contexts[4].item() == 0  # e2, who shares e5, has no vector


def test_more_noise_asks_for_a_higher_penalty() -> None:
    graph, values = communities()
    noise = np.random.default_rng(1).standard_normal(values.shape)
    seen = np.arange(240) % 4 > 0
    wanted = torch.arange(240)
    told = ridge(problem_of(graph, values, seen), wanted)[2]
    lost = ridge(problem_of(graph, noise, seen), wanted)[2]
    assert sum(np.log(lost)) > sum(np.log(told))


@pytest.mark.parametrize("width", [1, 3])
def test_constant_columns_and_few_vectors_stay_finite(width: int) -> None:
    graph, values = communities(60, width)
    values[:, 0] = 7
    for least in (1, 2, 19, 40):
        found, _, _ = ridge(problem_of(graph, values, np.arange(60) < least), torch.arange(60))
        assert torch.isfinite(found).all()
        assert torch.allclose(found[:, 0], torch.tensor(7.0), atol=1e-5)
