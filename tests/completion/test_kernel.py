from __future__ import annotations

import numpy as np
import pytest
import torch

from mmkgc_cli.completion import kernel as module
from mmkgc_cli.completion.kernel import SHARPNESS, EntityDescriptors, gaussian_process
from mmkgc_cli.completion.measuring import HeldOutVectors
from mmkgc_cli.completion.problem import CompletionProblem
from tests.completion.small import communities, graph_with, problem_of


def example(hidden: int = 2) -> CompletionProblem:
    graph, values = communities()
    return problem_of(graph, values, np.arange(240) % 5 >= hidden)


def dense_descriptors(problem: CompletionProblem) -> np.ndarray:
    """Computes the descriptors of all entities as one dense matrix."""
    descriptors = EntityDescriptors.from_problem(problem)
    n, (context, total) = len(problem.names), problem.contexts
    table = np.zeros((n, total))
    table[problem.target, context] = np.bincount(context, minlength=total)[context] ** -0.25
    table /= np.maximum(np.linalg.norm(table, axis=1, keepdims=True), 1e-12)
    return np.concatenate([descriptors.dense.numpy(), table], axis=1)


@pytest.mark.parametrize("pairs", [1, 50, 1 << 22])
def test_covariance_depends_on_the_distance_of_the_descriptors(
    monkeypatch: pytest.MonkeyPatch, pairs: int
) -> None:
    monkeypatch.setattr(module, "_PAIRS", pairs)
    graph = graph_with(7, [(0, 0, 3), (1, 0, 3), (2, 0, 3), (2, 1, 5), (4, 1, 5), (0, 1, 5)])
    problem = problem_of(graph, np.arange(14.0).reshape(7, 2), [1, 1, 0, 1, 1, 0, 1])
    table = dense_descriptors(problem)
    rows, columns = torch.tensor([6, 2, 0, 4]), torch.tensor([0, 1, 3, 6, 5])
    apart = np.square(table[rows][:, None] - table[columns][None]).sum(axis=2)
    covariance = EntityDescriptors.from_problem(problem).covariance(rows, columns)
    assert np.allclose(covariance, np.exp(-SHARPNESS * apart / 8), atol=1e-6)


def test_each_descriptor_has_length_one_or_zero() -> None:
    graph = graph_with(5, [(0, 0, 1), (2, 0, 1), (2, 1, 3)])
    problem = problem_of(graph, np.array([[1.0], [5], [2], [0], [3]]), [1, 1, 1, 0, 1])
    # e4 has no triple; no entity shares the contexts of e1 or e3; e2, the neighbour of e3, has a
    # vector.
    assert EntityDescriptors.from_problem(problem).square.tolist() == pytest.approx([4, 3, 4, 3, 0])


def test_vectors_are_the_posterior_mean_of_a_gaussian_process() -> None:
    problem = example()
    observed_ids = problem.observed_ids.numpy()
    vectors, _, settings = gaussian_process(problem, torch.arange(240))
    table = dense_descriptors(problem)
    apart = np.square(table[:, None] - table[None, observed_ids]).sum(axis=2)
    covariance = np.exp(-SHARPNESS * apart / 8)
    inner = covariance[observed_ids] + settings["noise"] * np.eye(len(observed_ids))
    centred = problem.vectors.numpy()[observed_ids] - problem.mean.numpy()
    expected = covariance @ np.linalg.solve(inner, centred) + problem.mean.numpy()
    assert np.allclose(vectors, expected, atol=1e-3)


def test_inducing_all_observed_entities_gives_the_exact_posterior(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    problem = example()
    exact = gaussian_process(problem, torch.arange(240))[0]
    monkeypatch.setattr(module, "MAX_EXACT", 0)
    assert torch.allclose(gaussian_process(problem, torch.arange(240))[0], exact, atol=1e-2)
    # A third of the entities gives nearly the same vectors.
    monkeypatch.setattr(module, "INDUCING", 48)
    hidden = (~problem.observed).nonzero()[:, 0]
    fewer, _, settings = gaussian_process(problem, hidden)
    assert settings["inducing"] == 48
    truth = HeldOutVectors(problem.vectors[hidden], problem.mean)
    gap = truth.measure(exact[hidden]).centred_cosine - truth.measure(fewer).centred_cosine
    assert 0 < abs(gap) < 0.1


def test_estimated_noise_grows_with_the_noise_of_the_vectors() -> None:
    graph, values = communities()
    unrelated = np.random.default_rng(1).standard_normal(values.shape)
    observed = np.arange(240) % 4 > 0
    low, high = (
        gaussian_process(problem_of(graph, vectors, observed), torch.arange(3))[2]["noise"]
        for vectors in (values, unrelated)
    )
    assert high > 4 * low


@pytest.mark.parametrize("width", [1, 3])
def test_constant_columns_and_few_vectors_stay_finite(width: int) -> None:
    graph, values = communities(60, width)
    values[:, 0] = 7
    for count in (1, 2, 19, 40):
        problem = problem_of(graph, values, np.arange(60) < count)
        vectors = gaussian_process(problem, torch.arange(60))[0]
        assert torch.isfinite(vectors).all()
        assert torch.allclose(vectors[:, 0], torch.tensor(7.0), atol=1e-5)


def test_without_observed_vectors_no_entity_is_informed() -> None:
    graph, values = communities(60, 2)
    problem = problem_of(graph, values, np.zeros(60))
    vectors, informed, _ = gaussian_process(problem, torch.arange(4))
    assert vectors.tolist() == [[0, 0]] * 4
    assert not informed.any()
