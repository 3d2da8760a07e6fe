from __future__ import annotations

import dataclasses
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.errors import UsageError
from mmkgc_cli.extraction.contract import InputOptions, InputSet
from mmkgc_cli.extraction.structure_inputs import find
from mmkgc_cli.kg.graph import Graph


def graph(rows: list[list[int]], names: list[str], labels: list[str] | None = None) -> Graph:
    train = np.array(rows, dtype=np.int32).reshape(-1, 3)
    none = train[:0]
    test = np.array([[0, 0, 3]], dtype=np.int32)
    return Graph("g", names, ["is_in", "near.to"], train, none, test, entity_labels=labels)


ROWS = [[0, 0, 1], [2, 1, 0], [1, 1, 1], [0, 0, 2]]
NAMES = ["/m/a", "b", "c_d", "lonely"]


def texts(input_set: InputSet[str]) -> dict[str, str]:
    return {name: entry.load() for name, (entry,) in input_set.inputs.items()}


def test_the_text_of_an_entity_contains_its_train_triples_only() -> None:
    input_set = find(graph(ROWS, NAMES), InputOptions())
    assert texts(input_set) == {
        "/m/a": "m a is in b. m a is in c d. c d near to m a",
        "b": "m a is in b. b near to b",
        "c_d": "m a is in c d. c d near to m a",
    }
    assert input_set.train_id == graph(ROWS, NAMES).train_id
    assert input_set.preprocess == "train triples by names"


def test_labels_replace_names(tmp_path: Path) -> None:
    input_set = find(graph(ROWS, NAMES, ["Aa", "Bb", "Cc", "L"]), InputOptions())
    assert texts(input_set)["b"] == "Aa is in Bb. Bb near to Bb"
    assert input_set.preprocess == "train triples by labels"
    with pytest.raises(UsageError, match="--input: structure is made from the train triples"):
        find(graph(ROWS, NAMES), InputOptions(tmp_path))


def test_neither_the_order_of_entities_nor_of_triples_matters() -> None:
    reference = find(graph(ROWS, NAMES), InputOptions())
    new_number = [2, 0, 3, 1]  # new number of each entity
    rows = [[new_number[h], r, new_number[t]] for h, r, t in reversed(ROWS)]
    names = [NAMES[new_number.index(i)] for i in range(4)]
    second = find(graph(rows, names), InputOptions())
    assert texts(reference) == texts(second)
    assert reference.source == second.source
    fewer = dataclasses.replace(graph(ROWS, NAMES), train=graph(ROWS[1:], NAMES).train)
    assert find(fewer, InputOptions()).source != reference.source
