from __future__ import annotations

import dataclasses
import hashlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.masks import PATTERNS, MaskRequest, missing_mask, read_mask_file
from mmkgc_cli.kg.graph import Graph
from tests.conftest import random_graph

GRAPH = random_graph(40, 5, 300, seed=0)
IDS = list(GRAPH.entities)
OBSERVED = np.arange(40) % 5 > 0


def names(request: MaskRequest, ids: list[str], observed: np.ndarray, graph: Graph) -> set[str]:
    masked = missing_mask(request, ids, observed, graph)
    assert not (masked & ~observed).any()
    return {ids[i] for i in np.flatnonzero(masked)}


@given(
    pattern=st.sampled_from(PATTERNS),
    rates=st.tuples(st.floats(0, 1), st.floats(0, 1)),
    seed=st.integers(0, 2**70),
)
def test_masks_are_nested_in_the_rate_and_have_the_requested_size(
    pattern: str, rates: tuple[float, float], seed: int
) -> None:
    few, many = (
        names(MaskRequest("image", rate, seed, pattern), IDS, OBSERVED, GRAPH)
        for rate in sorted(rates)
    )
    assert few <= many
    assert [len(few), len(many)] == [round(rate * OBSERVED.sum()) for rate in sorted(rates)]


@given(pattern=st.sampled_from(PATTERNS), seed=st.integers(0, 50))
def test_masks_do_not_depend_on_the_order_of_entities_or_the_numbers_of_the_graph(
    pattern: str, seed: int
) -> None:
    request = MaskRequest("image", 0.4, 3, pattern)
    order = np.random.default_rng(seed).permutation(40)
    new_number = np.argsort(order)
    train = GRAPH.train.copy()
    train[:, [0, 2]] = new_number[train[:, [0, 2]]]
    renumbered = dataclasses.replace(GRAPH, entities=[IDS[i] for i in order], train=train[::-1])
    expected = names(request, IDS, OBSERVED, GRAPH)
    assert names(request, [IDS[i] for i in order], OBSERVED[order], renumbered) == expected


def test_only_patterns_that_count_train_triples_depend_on_splits() -> None:
    other = dataclasses.replace(GRAPH, train=GRAPH.train[30:], valid=GRAPH.train[:30])
    for pattern in PATTERNS:
        request = MaskRequest("image", 0.5, 0, pattern)
        same = names(request, IDS, OBSERVED, GRAPH) == names(request, IDS, OBSERVED, other)
        assert same == (pattern == "random"), pattern


def test_a_random_mask_is_the_rank_under_sha_256() -> None:
    def digest(name: str) -> bytes:
        return hashlib.sha256(b"mmkgc mask 1\n7\n5:image" + name.encode()).digest()

    observed_ids = [name for name, is_observed in zip(IDS, OBSERVED, strict=True) if is_observed]
    expected = set(sorted(observed_ids, key=digest)[:8])
    assert names(MaskRequest("image", 0.25, 7), IDS, OBSERVED, GRAPH) == expected
    assert names(MaskRequest("text", 0.25, 7), IDS, OBSERVED, GRAPH) != expected
    assert names(MaskRequest("image", 0.25, 8), IDS, OBSERVED, GRAPH) != expected


def test_the_degree_pattern_takes_rare_entities_first() -> None:
    # Half of the entities have one train triple each, the others a hundred.
    ids = [f"e{i}" for i in range(400)]
    rare = np.array([[i, 0, i + 200] for i in range(200)], dtype=np.int32)
    often = np.array([[200 + i, 0, 200 + (i + k) % 200] for i in range(200) for k in range(1, 50)])
    train = np.concatenate([rare, often.astype(np.int32)])
    graph = Graph("g", ids, ["r"], train, train[:0], train[:0])
    masked = missing_mask(
        MaskRequest("image", 0.25, 0, "degree"), ids, np.ones(400, dtype=bool), graph
    )
    observed = np.ones(400, dtype=bool)
    # Weights 1/2 and 1/100: of a hundred draws, 1 or 2 in a random one of 50 would be expected.
    assert masked[:200].sum() >= 90
    masked = missing_mask(MaskRequest("image", 0.25, 0), ids, observed)
    assert 30 <= masked[:200].sum() <= 70


def test_the_relation_pattern_takes_groups_that_share_a_relation() -> None:
    ids = [f"e{i}" for i in range(90)] + ["never seen"]
    # Entities 0-29 are heads of a, 30-59 tails of a, 60-89 both sides of b, mostly.
    triples = [[i, 0, 30 + i] for i in range(30)]
    triples += [[60 + i, 1, 60 + (i + k) % 30] for i in range(30) for k in (1, 2)]
    train = np.array(triples, dtype=np.int32)
    graph = Graph("g", ids, ["a", "b"], train, train[:0], train[:0])
    observed = np.ones(91, dtype=bool)
    orders = []
    for seed in range(12):
        masked = missing_mask(MaskRequest("image", 30 / 91, seed, "relation"), ids, observed, graph)
        groups = [int(masked[start : start + 30].sum()) for start in (0, 30, 60)]
        assert sorted(groups) == [0, 0, 30]
        orders.append(int(np.argmax(groups)))
        largest = missing_mask(
            MaskRequest("image", 90 / 91, seed, "relation"), ids, observed, graph
        )
        assert not largest[90]
    assert set(orders) == {0, 1, 2}


def test_wrong_arguments_of_masks_are_errors() -> None:
    with pytest.raises(UsageError, match=r"rate 1.5: expected the fraction"):
        MaskRequest("image", 1.5)
    with pytest.raises(UsageError, match="pattern 'degre' is unknown; did you mean 'degree'"):
        MaskRequest("image", 0.5, 0, "degre")
    with pytest.raises(UsageError, match="needs a graph; add --graph"):
        missing_mask(MaskRequest("image", 0.5, 0, "degree"), IDS, OBSERVED)


def test_a_list_of_ids_is_a_mask(tmp_path: Path) -> None:
    path = tmp_path / "ids.txt"
    path.write_text("entity 3\r\nentity 1\n")
    assert np.flatnonzero(read_mask_file(path, IDS)).tolist() == [1, 3]
    path.write_text("entity 3\nnobody\n")
    with pytest.raises(DataError, match=r"ids.txt:2: 'nobody' is not among the 40 ids"):
        read_mask_file(path, IDS)
    path.write_text("entity 3\nentity 3\n")
    with pytest.raises(DataError, match=r"ids.txt:2: 'entity 3' is listed twice"):
        read_mask_file(path, IDS)
