from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkgc_cli.completion.auto import choose
from mmkgc_cli.completion.measuring import Truth
from mmkgc_cli.completion.problem import Problem
from mmkgc_cli.completion.strategies import STRATEGIES, strategy, without_own
from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.graph import Graph
from tests.completion.small import communities, graph_with, problem_of

STRUCTURAL = [name for name, one in STRATEGIES.items() if one.structural]


def made(name: str, problem: Problem, wanted: list[int], iterations: int = 40) -> np.ndarray:
    return strategy(name).make(problem, torch.tensor(wanted), iterations).vectors.numpy()


def test_neighbours_are_averaged_within_relation_and_direction_first() -> None:
    # e0 receives from e1 and e2 under r0, and sends to e3 under r1; e4 has no vector.
    graph = graph_with(5, [(1, 0, 0), (2, 0, 0), (0, 1, 3), (4, 1, 0), (1, 0, 0), (0, 0, 0)])
    values = [[9, 9], [1, 0], [3, 4], [10, 6], [7, 7]]
    problem = problem_of(graph, np.array(values), [False, True, True, True, False])
    # ((1 + 3) / 2 + 10) / 2 and ((0 + 4) / 2 + 6) / 2; repeats and loops count for nothing.
    assert np.allclose(made("neighbours", problem, [0]), [[6, 4]], atol=1e-6)


def test_an_entity_that_nothing_is_known_of_gets_the_mean_and_is_counted() -> None:
    graph = graph_with(4, [(0, 0, 1)])
    values = np.array([[1.0, 2], [3, 6], [0, 0], [5, 1]])
    problem = problem_of(graph, values, [True, True, False, True])
    for name in STRUCTURAL:
        found = strategy(name).make(problem, torch.tensor([2]), 40)
        assert np.allclose(found.vectors, [[3, 3]], atol=1e-6), name
        assert found.fallback.tolist() == [True], name


def test_propagation_on_a_path_ends_at_the_harmonic_extension() -> None:
    n = 7
    graph = graph_with(n, [(i, 0, i + 1) for i in range(n - 1)])
    values = np.zeros((n, 2))
    values[0], values[-1] = [1, -4], [5, 2]
    seen = np.isin(np.arange(n), [0, n - 1])
    found = made("propagation", problem_of(graph, values, seen), list(range(n)), 2000)
    assert np.array_equal(found[[0, -1]], values[[0, -1]].astype(np.float32))
    # x / sqrt(degree) is harmonic, so linear along a path, once vectors are centred.
    degree = np.array([1, *[2] * (n - 2), 1])[:, None]
    mean = values[[0, -1]].mean(axis=0)
    line = (found - mean) / np.sqrt(degree)
    assert np.allclose(np.diff(line, 2, axis=0), 0, atol=1e-5)
    assert np.abs(np.diff(line, axis=0)).min() > 0.1


def test_each_iteration_of_propagation_goes_one_edge_further() -> None:
    graph = graph_with(6, [(i, 0, i + 1) for i in range(5)])
    values = np.arange(6.0)[:, None] ** 2
    problem = problem_of(graph, values, [True, True, False, False, False, False])
    for steps in range(1, 5):
        found = strategy("propagation").make(problem, torch.arange(2, 6), steps)
        assert found.fallback.tolist() == [i >= steps for i in range(4)]


def test_the_mean_is_that_of_the_others() -> None:
    values = np.array([[1.0], [4], [100], [7]])
    problem = problem_of(graph_with(4, []), values, [True, True, False, True])
    assert made("mean", problem, [0, 1, 2, 3]).ravel().tolist() == [5.5, 4.0, 4.0, 2.5]


@settings(max_examples=8)
@given(order=st.permutations(range(60)))
def test_the_order_of_entities_changes_no_bit(order: list[int]) -> None:
    graph, values = communities(60, 5)
    seen = np.arange(60) % 3 > 0
    place = np.argsort(order)
    train = graph.train.copy()
    train[:, [0, 2]] = place[graph.train[:, [0, 2]]]
    other = Graph("other", [graph.entities[i] for i in order], graph.relations, train[::-1],
                  train[:0], train[:0])  # fmt: skip
    left = problem_of(graph, values, seen)
    right = problem_of(other, values[order], seen[order])
    wanted = list(range(60))
    for name in STRATEGIES:
        assert np.array_equal(made(name, left, wanted), made(name, right, wanted)), name
    assert choose(left, 40) == choose(right, 40)


@pytest.mark.parametrize("name", list(STRATEGIES))
def test_no_vector_of_an_observed_entity_is_made_from_its_own(name: str) -> None:
    graph, values = communities(60, 5)
    seen = np.arange(60) % 3 > 0
    who = 4
    wanted = torch.tensor([who])
    before = without_own(strategy(name), problem_of(graph, values, seen), wanted, 40).vectors
    changed = values.copy()
    changed[who] += 5
    after = without_own(strategy(name), problem_of(graph, changed, seen), wanted, 40).vectors
    # Centring lets its own vector in and out again, which rounds.
    assert torch.allclose(before, after, atol=1e-4)


def test_random_vectors_follow_from_seed_and_name() -> None:
    graph, values = communities(60, 5)
    seen = np.zeros(60, dtype=bool)
    first = made("random", problem_of(graph, values, seen), [3, 5])
    assert np.array_equal(first[::-1], made("random", problem_of(graph, values, seen), [5, 3]))
    assert not np.array_equal(first, made("random", problem_of(graph, values, seen, 1), [3, 5]))
    many = made("random", problem_of(*communities(240, 50), np.zeros(240)), list(range(240)))
    assert abs(many.mean()) < 0.05
    assert abs(many.std() - 1) < 0.05


def test_structure_helps_where_it_says_something_and_not_where_entities_are_shuffled() -> None:
    graph, values = communities()
    hidden = np.arange(240) % 5 < 2
    shuffled = np.random.default_rng(3).permutation(values)
    for table, least, most in ((values, 0.6, 1.0), (shuffled, -0.15, 0.15)):
        problem = problem_of(graph, table, ~hidden)
        wanted = (~problem.observed).nonzero()[:, 0]
        truth = Truth(problem.vectors[wanted], problem.mean)
        for name in STRUCTURAL:
            found = truth.measure(strategy(name).make(problem, wanted, 40).vectors)
            assert least < found.centred_cosine < most, name


def test_auto_takes_the_best_on_what_it_held_out_and_says_by_how_much() -> None:
    graph, values = communities()
    problem = problem_of(graph, values, np.arange(240) % 5 > 1)
    choice = choose(problem, 40)
    centred = {name: m.centred_cosine for name, m in choice.tried.items()}
    assert set(centred) == set(STRATEGIES)
    assert choice.best == max(centred, key=centred.__getitem__)
    assert choice.best in STRUCTURAL
    assert choice.gain == pytest.approx(centred[choice.best] - sorted(centred.values())[-2])
    assert {m.count for m in choice.tried.values()} == {15}
    with pytest.raises(DataError, match="auto hides a tenth .* needs 2 of them, got 1"):
        choose(problem_of(graph, values, np.arange(240) == 7), 40)


def test_a_strategy_that_is_not_there_is_named_with_the_nearest() -> None:
    with pytest.raises(UsageError, match="strategy 'rigde': did you mean 'ridge'"):
        strategy("rigde")
