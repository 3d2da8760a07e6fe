"""Small completion problems for tests."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch

from mmkgc_cli.completion.problem import CompletionProblem
from mmkgc_cli.kg.graph import Graph


def graph_with(n: int, triples: Sequence[tuple[int, int, int]], relations: int = 2) -> Graph:
    """Builds a graph with n entities e000, e001, … and the given train triples."""
    train = np.array(triples, dtype=np.int32).reshape(-1, 3)
    names = [f"e{i:03}" for i in range(n)]
    return Graph("small", names, [f"r{i}" for i in range(relations)], train, train[:0], train[:0])


def problem_of(
    graph: Graph, vectors: np.ndarray, observed: Sequence[int] | np.ndarray, seed: int = 0
) -> CompletionProblem:
    values = torch.from_numpy(np.asarray(vectors, dtype=np.float32))
    return CompletionProblem.from_graph(
        graph, "image", values, np.asarray(observed, dtype=bool), seed
    )


def communities(n: int = 240, width: int = 12, seed: int = 0) -> tuple[Graph, np.ndarray]:
    """Builds a graph of six groups without links between them; vectors are near the group mean."""
    rng = np.random.default_rng(seed)
    group = np.arange(n) % 6
    rows = []
    for head in range(n):
        others = np.flatnonzero((group == group[head]) & (np.arange(n) != head))
        rows += [(head, int(group[head]) % 2, int(tail)) for tail in rng.choice(others, 3)]
    centres = 2 * rng.standard_normal((6, width))
    values = centres[group] + rng.standard_normal((n, width))
    return graph_with(n, sorted(set(rows))), values.astype(np.float32)
