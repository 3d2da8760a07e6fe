from __future__ import annotations

import numpy as np
import pytest
import torch

from mmkgc_cli.completion.regression import Moments, regressors, ridge_regression
from tests.completion.small import communities, graph_with, problem_of


def test_coefficients_equal_least_squares_with_penalty_rows() -> None:
    rng = np.random.default_rng(0)
    groups = [torch.from_numpy(rng.standard_normal((50, k)).astype(np.float32)) for k in (4, 3)]
    values = torch.from_numpy(rng.standard_normal((50, 6)).astype(np.float32))
    rows = torch.arange(5, 45)
    moments = Moments.from_rows(groups, values, rows)
    coefficients = moments.solve([0.3, 2.0])
    x = torch.cat(groups, dim=1)[rows].double()
    y = values[rows].double()
    x, y = x - x.mean(0), y - y.mean(0)
    scale = [0.3 * x[:, :4].square().sum(0).mean(), 2.0 * x[:, 4:].square().sum(0).mean()]
    penalty = torch.stack([scale[0]] * 4 + [scale[1]] * 3)
    stacked = torch.cat([x, torch.diag(penalty.sqrt())])
    expected = torch.linalg.lstsq(stacked, torch.cat([y, torch.zeros(7, 6)])).solution
    assert torch.allclose(coefficients, expected, atol=1e-10)


def test_regressors_exclude_the_vector_of_the_entity() -> None:
    # r0 links e0, e1 and e2 to e3; r1 links e2 and e4 to e5.
    graph = graph_with(6, [(0, 0, 3), (1, 0, 3), (2, 0, 3), (2, 1, 5), (4, 1, 5)])
    values = np.array([[2.0], [4], [9], [1], [6], [0]])
    problem = problem_of(graph, values, [True, True, False, True, True, False])
    counts, neighbours, contexts = regressors(problem)
    mean = (2 + 4 + 1 + 6) / 4
    heads = counts[
        :, [0, 1, 2, 3]
    ]  # tail of r0, r1, head of r0, r1; order by id, as frequencies tie
    assert torch.allclose(heads[2], torch.tensor([0.0, 0, 1, 1]) * np.log(2))
    assert torch.allclose(heads[3], torch.tensor([1.0, 0, 0, 0]) * np.log(4))
    assert neighbours[2].item() == pytest.approx(1 - mean)  # e3; e5 has no vector
    assert neighbours[3].item() == pytest.approx(3 - mean)  # e0 and e1
    assert neighbours[5].item() == pytest.approx(6 - mean)
    assert contexts[0].item() == pytest.approx(4 - mean)  # e1, without e0 itself
    assert contexts[2].item() == pytest.approx(((2 + 4) / 2 + 6) / 2 - mean)
    assert contexts[4].item() == 0  # e2, which shares the context e5, has no vector


def test_penalties_grow_with_the_noise_of_the_vectors() -> None:
    graph, values = communities()
    unrelated = np.random.default_rng(1).standard_normal(values.shape)
    observed = np.arange(240) % 4 > 0
    low, high = (
        ridge_regression(problem_of(graph, vectors, observed), torch.arange(240))[2]
        for vectors in (values, unrelated)
    )
    assert sum(np.log(high)) > sum(np.log(low))


@pytest.mark.parametrize("width", [1, 3])
def test_constant_columns_and_few_vectors_stay_finite(width: int) -> None:
    graph, values = communities(60, width)
    values[:, 0] = 7
    for count in (1, 2, 19, 40):
        problem = problem_of(graph, values, np.arange(60) < count)
        vectors, _, _ = ridge_regression(problem, torch.arange(60))
        assert torch.isfinite(vectors).all()
        assert torch.allclose(vectors[:, 0], torch.tensor(7.0), atol=1e-5)
