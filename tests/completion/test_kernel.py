from __future__ import annotations

import numpy as np
import pytest
import torch

from mmkgc_cli.completion import kernel as module
from mmkgc_cli.completion.kernel import SHARPNESS, Views, kernel
from mmkgc_cli.completion.measuring import Truth
from mmkgc_cli.completion.problem import Problem
from tests.completion.small import communities, graph_with, problem_of


def some(hidden: int = 2) -> Problem:
    graph, values = communities()
    return problem_of(graph, values, np.arange(240) % 5 >= hidden)


def described(problem: Problem) -> np.ndarray:
    """The views of all entities side by side, as dense rows, contexts by triple."""
    views = Views.of(problem)
    n, (context, total) = len(problem.names), problem.contexts
    table = np.zeros((n, total))
    table[problem.target, context] = np.bincount(context, minlength=total)[context] ** -0.25
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return np.concatenate([views.dense.numpy(), table], axis=1)


@pytest.mark.parametrize("pairs", [1, 50, 1 << 22])
def test_covariance_is_that_of_the_distance_of_the_views(
    monkeypatch: pytest.MonkeyPatch, pairs: int
) -> None:
    monkeypatch.setattr(module, "_PAIRS", pairs)
    graph = graph_with(7, [(0, 0, 3), (1, 0, 3), (2, 0, 3), (2, 1, 5), (4, 1, 5), (0, 1, 5)])
    problem = problem_of(graph, np.arange(14.0).reshape(7, 2), [1, 1, 0, 1, 1, 0, 1])
    table = described(problem)
    rows, columns = torch.tensor([6, 2, 0, 4]), torch.tensor([0, 1, 3, 6, 5])
    apart = np.square(table[rows][:, None] - table[columns][None]).sum(axis=2)
    found = Views.of(problem).kernel(rows, columns)
    assert np.allclose(found, np.exp(-SHARPNESS * apart / 8), atol=1e-6)


def test_each_view_is_of_length_one_or_nothing() -> None:
    graph = graph_with(5, [(0, 0, 1), (2, 0, 1), (2, 1, 3)])
    problem = problem_of(graph, np.array([[1.0], [5], [2], [0], [3]]), [1, 1, 1, 0, 1])
    # e4 has no triple; nobody shares e1's or e3's contexts; e3's one neighbour e2 has a vector.
    assert Views.of(problem).square.tolist() == pytest.approx([4, 3, 4, 3, 0])


def test_vectors_are_the_posterior_mean_of_a_gaussian_process() -> None:
    problem = some()
    wanted, known = torch.arange(240), problem.known.numpy()
    found, _, settings = kernel(problem, wanted)
    table = described(problem)
    apart = np.square(table[:, None] - table[None, known]).sum(axis=2)
    covariance = np.exp(-SHARPNESS * apart / 8)
    inner = covariance[known] + settings["noise"] * np.eye(len(known))
    centred = problem.vectors.numpy()[known] - problem.mean.numpy()
    expected = covariance @ np.linalg.solve(inner, centred) + problem.mean.numpy()
    assert np.allclose(found, expected, atol=1e-3)


def test_inducing_entities_that_are_all_there_are_give_the_exact_answer(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = some()
    exact = kernel(problem, torch.arange(240))[0]
    monkeypatch.setattr(module, "MOST_EXACT", 0)
    assert torch.allclose(kernel(problem, torch.arange(240))[0], exact, atol=1e-2)
    # A third of them still says most of it.
    monkeypatch.setattr(module, "INDUCING", 48)
    hidden = (~problem.observed).nonzero()[:, 0]
    fewer, _, settings = kernel(problem, hidden)
    assert settings["inducing"] == 48
    truth = Truth(problem.vectors[hidden], problem.mean)
    gap = truth.measure(exact[hidden]).centred_cosine - truth.measure(fewer).centred_cosine
    assert 0 < abs(gap) < 0.1


def test_more_noise_in_the_vectors_is_more_noise_found() -> None:
    graph, values = communities()
    lost = np.random.default_rng(1).standard_normal(values.shape)
    seen = np.arange(240) % 4 > 0
    found = [
        kernel(problem_of(graph, table, seen), torch.arange(3))[2]["noise"]
        for table in (values, lost)
    ]
    assert found[1] > 4 * found[0]


@pytest.mark.parametrize("width", [1, 3])
def test_constant_columns_and_few_vectors_stay_finite(width: int) -> None:
    graph, values = communities(60, width)
    values[:, 0] = 7
    for least in (1, 2, 19, 40):
        found = kernel(problem_of(graph, values, np.arange(60) < least), torch.arange(60))[0]
        assert torch.isfinite(found).all()
        assert torch.allclose(found[:, 0], torch.tensor(7.0), atol=1e-5)


def test_without_any_observed_vector_nothing_is_known() -> None:
    graph, values = communities(60, 2)
    found, known, _ = kernel(problem_of(graph, values, np.zeros(60)), torch.arange(4))
    assert found.tolist() == [[0, 0]] * 4
    assert not known.any()
