from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkgc_cli.completion.auto import choose_strategy
from mmkgc_cli.completion.measuring import HeldOutVectors
from mmkgc_cli.completion.problem import CompletionProblem
from mmkgc_cli.completion.strategies import STRATEGIES, cross_fit, find_strategy
from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.graph import Graph
from tests.completion.small import communities, graph_with, problem_of

STRUCTURAL = [name for name, strategy in STRATEGIES.items() if strategy.uses_triples]


def vectors_by(
    name: str, problem: CompletionProblem, entities: list[int], iterations: int = 40
) -> np.ndarray:
    generate = find_strategy(name).generate
    return generate(problem, torch.tensor(entities), iterations).vectors.numpy()


def test_neighbours_are_averaged_per_relation_and_direction_first() -> None:
    # r0 links e1 and e2 to e0; r1 links e0 to e3 and e4 to e0; e4 has no vector.
    graph = graph_with(5, [(1, 0, 0), (2, 0, 0), (0, 1, 3), (4, 1, 0), (1, 0, 0), (0, 0, 0)])
    values = [[9, 9], [1, 0], [3, 4], [10, 6], [7, 7]]
    problem = problem_of(graph, np.array(values), [False, True, True, True, False])
    # ((1 + 3) / 2 + 10) / 2 and ((0 + 4) / 2 + 6) / 2; repeated triples and loops are ignored.
    assert np.allclose(vectors_by("neighbours", problem, [0]), [[6, 4]], atol=1e-6)


def test_an_entity_without_information_gets_the_mean_as_fallback() -> None:
    graph = graph_with(4, [(0, 0, 1)])
    values = np.array([[1.0, 2], [3, 6], [0, 0], [5, 1]])
    problem = problem_of(graph, values, [True, True, False, True])
    for name in STRUCTURAL:
        output = find_strategy(name).generate(problem, torch.tensor([2]), 40)
        assert np.allclose(output.vectors, [[3, 3]], atol=1e-6), name
        assert output.fallback.tolist() == [True], name


def test_propagation_on_a_path_converges_to_the_harmonic_extension() -> None:
    n = 7
    graph = graph_with(n, [(i, 0, i + 1) for i in range(n - 1)])
    values = np.zeros((n, 2))
    values[0], values[-1] = [1, -4], [5, 2]
    observed = np.isin(np.arange(n), [0, n - 1])
    vectors = vectors_by("propagation", problem_of(graph, values, observed), list(range(n)), 2000)
    assert np.array_equal(vectors[[0, -1]], values[[0, -1]].astype(np.float32))
    # For centred x, x / sqrt(degree) is harmonic and therefore linear along the path.
    degree = np.array([1, *[2] * (n - 2), 1])[:, None]
    mean = values[[0, -1]].mean(axis=0)
    line = (vectors - mean) / np.sqrt(degree)
    assert np.allclose(np.diff(line, 2, axis=0), 0, atol=1e-5)
    assert np.abs(np.diff(line, axis=0)).min() > 0.1


def test_each_propagation_iteration_reaches_one_edge_further() -> None:
    graph = graph_with(6, [(i, 0, i + 1) for i in range(5)])
    values = np.arange(6.0)[:, None] ** 2
    problem = problem_of(graph, values, [True, True, False, False, False, False])
    for steps in range(1, 5):
        output = find_strategy("propagation").generate(problem, torch.arange(2, 6), steps)
        assert output.fallback.tolist() == [i >= steps for i in range(4)]


def test_the_mean_excludes_the_entity_itself() -> None:
    values = np.array([[1.0], [4], [100], [7]])
    problem = problem_of(graph_with(4, []), values, [True, True, False, True])
    assert vectors_by("mean", problem, [0, 1, 2, 3]).ravel().tolist() == [5.5, 4.0, 4.0, 2.5]


@settings(max_examples=8)
@given(order=st.permutations(range(60)))
def test_vectors_do_not_depend_on_the_order_of_entities(order: list[int]) -> None:
    graph, values = communities(60, 5)
    observed = np.arange(60) % 3 > 0
    new_id = np.argsort(order)
    train = graph.train.copy()
    train[:, [0, 2]] = new_id[graph.train[:, [0, 2]]]
    other = Graph("other", [graph.entities[i] for i in order], graph.relations, train[::-1],
                  train[:0], train[:0])  # fmt: skip
    left = problem_of(graph, values, observed)
    right = problem_of(other, values[order], observed[order])
    entities = list(range(60))
    for name in STRATEGIES:
        assert np.array_equal(
            vectors_by(name, left, entities), vectors_by(name, right, entities)
        ), name
    assert choose_strategy(left, 40) == choose_strategy(right, 40)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_cross_fitted_vectors_do_not_depend_on_the_own_vector(name: str) -> None:
    graph, values = communities(60, 5)
    observed = np.arange(60) % 3 > 0
    strategy, entity = find_strategy(name), torch.tensor([4])
    before = cross_fit(strategy, problem_of(graph, values, observed), entity, 40).vectors
    changed = values.copy()
    changed[4] += 5
    after = cross_fit(strategy, problem_of(graph, changed, observed), entity, 40).vectors
    # Centring adds and subtracts the own vector, which rounds.
    assert torch.allclose(before, after, atol=1e-4)


def test_random_vectors_depend_on_seed_and_name_only() -> None:
    graph, values = communities(60, 5)
    observed = np.zeros(60, dtype=bool)
    first = vectors_by("random", problem_of(graph, values, observed), [3, 5])
    assert np.array_equal(
        first[::-1], vectors_by("random", problem_of(graph, values, observed), [5, 3])
    )
    assert not np.array_equal(
        first, vectors_by("random", problem_of(graph, values, observed, 1), [3, 5])
    )
    many = vectors_by("random", problem_of(*communities(240, 50), np.zeros(240)), list(range(240)))
    assert abs(many.mean()) < 0.05
    assert abs(many.std() - 1) < 0.05


def test_structure_helps_unless_vectors_are_shuffled() -> None:
    graph, values = communities()
    hidden = np.arange(240) % 5 < 2
    shuffled = np.random.default_rng(3).permutation(values)
    for vectors, low, high in ((values, 0.6, 1.0), (shuffled, -0.15, 0.15)):
        problem = problem_of(graph, vectors, ~hidden)
        entities = (~problem.observed).nonzero()[:, 0]
        truth = HeldOutVectors(problem.vectors[entities], problem.mean)
        for name in STRUCTURAL:
            output = find_strategy(name).generate(problem, entities, 40)
            assert low < truth.measure(output.vectors).centred_cosine < high, name


def test_auto_selects_the_best_strategy_on_held_out_vectors() -> None:
    graph, values = communities()
    problem = problem_of(graph, values, np.arange(240) % 5 > 1)
    choice = choose_strategy(problem, 40)
    centred = {name: m.centred_cosine for name, m in choice.measures.items()}
    assert set(centred) == set(STRATEGIES)
    assert choice.best == max(centred, key=centred.__getitem__)
    assert choice.best in STRUCTURAL
    assert choice.gain == pytest.approx(centred[choice.best] - sorted(centred.values())[-2])
    assert {m.count for m in choice.measures.values()} == {15}
    with pytest.raises(
        DataError, match="strategy auto needs at least 2 observed vectors, got 1; name one"
    ):
        choose_strategy(problem_of(graph, values, np.arange(240) == 7), 40)


def test_an_unknown_strategy_names_the_nearest() -> None:
    with pytest.raises(UsageError, match="unknown strategy 'rigde'; did you mean 'ridge'"):
        find_strategy("rigde")
