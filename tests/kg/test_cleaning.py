from __future__ import annotations

import dataclasses

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.kg.cleaning import clean_graph, drop_unseen
from mmkgc_cli.kg.graph import Graph
from tests.conftest import random_graph
from tests.kg.test_graph import renumbered

Triple = tuple[int, int, int]
SPLITS = st.lists(st.tuples(st.integers(0, 4), st.integers(0, 2), st.integers(0, 4)), max_size=12)


def graph_of(train: list[Triple], valid: list[Triple], test: list[Triple]) -> Graph:
    rows = (np.array(split, dtype=np.int32).reshape(-1, 3) for split in (train, valid, test))
    return Graph("g", [f"e{i}" for i in range(5)], ["r0", "r1", "r2"], *rows)


def triples(graph: Graph, split: str) -> list[tuple[str, str, str]]:
    return [graph.decode(row) for row in graph.splits[split]]


@given(train=SPLITS.filter(bool), valid=SPLITS, test=SPLITS)
def test_a_cleaned_graph_contains_every_triple_once_and_prefers_train_then_test(
    train: list[Triple], valid: list[Triple], test: list[Triple]
) -> None:
    cleaned = clean_graph(graph_of(train, valid, test), seed=0)
    assert not any(cleaned.leaks().values())
    splits = {
        split: [tuple(row) for row in rows.tolist()] for split, rows in cleaned.splits.items()
    }
    for rows in splits.values():
        assert len(set(rows)) == len(rows)
    assert set(splits["test"]) == set(test) - set(train)
    assert set(splits["train"]) | set(splits["valid"]) == set(train) | (set(valid) - set(test))
    moved = set(splits["valid"]) & set(train)
    assert moved.isdisjoint(splits["train"])
    seen = {entity for h, _, t in splits["train"] for entity in (h, t)}
    assert seen == {entity for h, _, t in train for entity in (h, t)}


def test_train_rows_move_to_valid_only_when_it_is_small() -> None:
    graph = random_graph(200, 3, 30_000, seed=0)
    assert np.array_equal(clean_graph(graph, 0).valid, graph.valid)
    assert clean_graph(graph, 0).provenance.notes == ()
    leaky = dataclasses.replace(graph, valid=graph.train[:3000])
    cleaned = clean_graph(leaky, 0)
    assert len(cleaned.valid) == round(0.05 * len(graph.train))
    assert cleaned.provenance.notes == (
        "valid: 3,000 rows dropped (duplicates, or contained in another split)",
        "valid: 1,200 rows moved from train (5 %, seed 0), in addition to the 0 left",
    )


def test_a_small_clean_graph_is_not_changed(graph: Graph) -> None:
    assert clean_graph(graph, 0).fingerprint == graph.fingerprint
    assert clean_graph(graph, 0).provenance.notes == ()


def test_cleaning_does_not_depend_on_ids_or_the_order_of_rows() -> None:
    graph = random_graph(50, 3, 1000, seed=0)
    leaky = dataclasses.replace(graph, valid=graph.train[:100])
    expected = clean_graph(leaky, 7)
    assert clean_graph(renumbered(leaky, 3), 7).fingerprint == expected.fingerprint
    assert clean_graph(leaky, 8).fingerprint != expected.fingerprint


@given(train=SPLITS.filter(bool), valid=SPLITS, test=SPLITS)
def test_drop_unseen_keeps_exactly_the_triples_with_names_in_train(
    train: list[Triple], valid: list[Triple], test: list[Triple]
) -> None:
    graph = graph_of(train, valid, test)
    before = {split: triples(graph, split) for split in graph.splits}
    rest = drop_unseen(graph)
    entities = {name for h, _, t in before["train"] for name in (h, t)}
    relations = {r for _, r, _ in before["train"]}
    for split in ("train", "valid", "test"):
        assert triples(rest, split) == [
            (h, r, t) for h, r, t in before[split] if {h, t} <= entities and r in relations
        ]
    assert rest.unseen() == {"valid": 0, "test": 0}
    occurring = {name for rows in before.values() for h, _, t in rows for name in (h, t)}
    # Names that lost their last triple are removed; names that never had one remain.
    assert set(rest.entities) == set(graph.entities) - (occurring - entities)


def test_drop_unseen_records_counts_and_keeps_labels_aligned() -> None:
    graph = graph_of([(0, 0, 2)], [(2, 0, 0), (1, 0, 2)], [(2, 1, 0)])
    labelled = dataclasses.replace(
        graph, entity_labels=list("abcde"), relation_labels=["A", "B", "C"]
    )
    rest = drop_unseen(labelled)
    assert list(rest.entity_labels or []) == ["a", "c", "d", "e"]
    assert list(rest.relation_labels or []) == ["A", "C"]
    assert rest.provenance.notes == (
        "valid: 1 triple with an entity or a relation unseen in train dropped",
        "test: 1 triple with an entity or a relation unseen in train dropped",
    )
    assert drop_unseen(rest) is rest
