from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.splitting import parse_ratios, split_graph
from tests.conftest import random_graph
from tests.kg.test_graph import renumbered

RATIOS = (0.8, 0.1, 0.1)


@given(seed=st.integers(0, 1000))
def test_splits_are_disjoint_complete_and_keep_everything_in_train(seed: int) -> None:
    graph = random_graph(20, 3, 200, seed=2)
    split = split_graph(graph, RATIOS, seed)
    rows = np.concatenate(list(split.splits.values()))
    before = np.concatenate(list(graph.splits.values()))
    assert len(rows) == 200
    assert np.array_equal(np.unique(rows, axis=0), np.unique(before, axis=0))
    assert [len(split.valid), len(split.test)] == [20, 20]
    assert split.unseen() == {"valid": 0, "test": 0}


def test_duplicates_are_dropped_before_splitting() -> None:
    graph = random_graph(20, 3, 200, seed=2)
    doubled = dataclasses.replace(graph, valid=np.concatenate([graph.valid, graph.train]))
    assert split_graph(doubled, RATIOS, 0).fingerprint == split_graph(graph, RATIOS, 0).fingerprint


def test_a_split_depends_on_the_seed_and_not_on_the_order_of_rows() -> None:
    graph = random_graph(20, 3, 200, seed=2)
    first = split_graph(graph, RATIOS, 5)
    assert split_graph(renumbered(graph, 1), RATIOS, 5).fingerprint == first.fingerprint
    assert split_graph(graph, RATIOS, 6).fingerprint != first.fingerprint


def test_too_few_triples_to_split_is_an_error() -> None:
    graph = random_graph(20, 1, 20, seed=2)
    with pytest.raises(DataError, match="too few for"):
        split_graph(graph, (0.2, 0.4, 0.4), 0)


@pytest.mark.parametrize(
    "text",
    ["0.8,0.2", "0.8,0.1,0.2", "a,b,c", "1,0,0", "0.8;0.1;0.1", "nan,nan,nan", "inf,0.1,0.1"],
)
def test_invalid_ratios_are_refused(text: str) -> None:
    with pytest.raises(UsageError, match="expected three shares above 0 that add up to 1"):
        parse_ratios(text)
    assert parse_ratios("0.8,0.1,0.1") == RATIOS
