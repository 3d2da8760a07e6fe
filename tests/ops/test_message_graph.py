from __future__ import annotations

import pytest
import torch

from mmkgc_cli.ops import MessageGraph


def test_repeated_triples_count_once_and_norms_are_per_receiver_and_relation() -> None:
    rows = torch.tensor([[0, 0, 2], [1, 0, 2], [0, 0, 2], [0, 1, 2]])
    graph = MessageGraph.from_triples(rows, 3, 2)
    assert graph.edges == 6
    into = slice(int(graph.ptr[2]), int(graph.ptr[3]))
    assert graph.source[into].tolist() == [0, 1, 0]
    assert graph.relation[into].tolist() == [0, 0, 1]
    assert graph.norm[into].tolist() == [0.5, 0.5, 1.0]


def test_self_relations_and_plain_sums_as_in_released_code() -> None:
    rows = torch.tensor([[0, 0, 2], [1, 0, 2]])
    graph = MessageGraph.from_triples(
        rows, 3, 1, inverse=False, normalize=False, self_relation=True
    )
    assert graph.relations == 2
    assert graph.norm.tolist() == [1.0] * 5
    assert graph.source.tolist() == [0, 1, 0, 1, 2]
    assert graph.relation.tolist() == [1, 1, 0, 0, 1]


def test_triples_out_of_range_raise() -> None:
    with pytest.raises(ValueError, match=r"outside 0\.\.2 \(entities\) or 0\.\.0"):
        MessageGraph.from_triples(torch.tensor([[0, 1, 2]]), 3, 1)


def test_norms_of_doubles_are_exact() -> None:
    rows = torch.tensor([[i, 0, 9] for i in range(3)])
    norm = MessageGraph.from_triples(rows, 10, 1, dtype=torch.float64).norm
    assert norm.unique().tolist() == [1 / 3, 1.0]
