"""Splits of one's own: by ratio and seed, with every entity and relation kept in train."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.graph import Graph, Triples


def parse_ratios(text: str) -> tuple[float, float, float]:
    """Reads ``0.8,0.1,0.1``: the shares of train, valid and test.

    Raises:
        UsageError: unless they are three shares above zero that add up to one.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not min(shares) > 0 or not abs(sum(shares) - 1) < 1e-6:
        raise UsageError(
            f"--split {text}: expected three shares above 0 that add up to 1, such as 0.8,0.1,0.1"
        )
    return shares[0], shares[1], shares[2]


def split_graph(graph: Graph, ratios: Sequence[float], seed: int) -> Graph:
    """Pools all triples, drops duplicates, and deals them out anew.

    The first triple in random order that shows an entity or a relation goes to train, so no
    entity of valid or test is unseen. The rest is dealt out to meet the ratios.

    Raises:
        DataError: when too few triples are left over for valid and test.
    """
    rows = np.unique(np.concatenate(list(graph.splits.values())), axis=0)
    rng = np.random.Generator(np.random.PCG64(seed))
    # In the order of the names, so that the order of the file does not matter.
    rows = rows[_name_order(graph, rows)]
    rows = rows[rng.permutation(len(rows))]
    needed = np.zeros(len(rows), dtype=bool)
    ends = rows[:, [0, 2]].ravel()
    needed[np.unique(ends, return_index=True)[1] // 2] = True
    needed[np.unique(rows[:, 1], return_index=True)[1]] = True
    free = np.flatnonzero(~needed)
    n_valid, n_test = round(len(rows) * ratios[1]), round(len(rows) * ratios[2])
    if n_valid < 1 or n_test < 1 or n_valid + n_test > len(free):
        raise DataError(
            f"{graph.name}: {len(rows)} distinct triples, of which {len(free)} can leave train "
            f"without losing an entity or a relation; too few for {n_valid} valid and {n_test} "
            "test triples, ask for smaller shares of them"
        )
    test, valid = free[:n_test], free[n_test : n_test + n_valid]
    in_train = np.ones(len(rows), dtype=bool)
    in_train[test] = in_train[valid] = False
    return dataclasses.replace(graph, train=rows[in_train], valid=rows[valid], test=rows[test])


def _name_order(graph: Graph, rows: Triples) -> NDArray[np.intp]:
    entity = np.argsort(np.argsort(np.array([n.encode() for n in graph.entities], dtype=object)))
    relation = np.argsort(np.argsort(np.array([n.encode() for n in graph.relations], dtype=object)))
    keys = (entity[rows[:, 2]], relation[rows[:, 1]], entity[rows[:, 0]])
    return np.lexsort(keys)
