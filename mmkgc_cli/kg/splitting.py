"""Random splits by ratio and seed that keep every entity and relation in train."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.triples import Triples, distinct_keys, rows_of_keys, triple_keys
from mmkgc_cli.text import counted

_T = TypeVar("_T", bound=np.generic)


def parse_ratios(text: str) -> tuple[float, float, float]:
    """Reads ``0.8,0.1,0.1``: the shares of train, valid and test.

    Raises:
        UsageError: unless these are three positive numbers that add up to 1.
    """
    try:
        shares = tuple(float(part) for part in text.split(","))
    except ValueError:
        shares = ()
    if len(shares) != 3 or not min(shares) > 0 or not abs(sum(shares) - 1) < 1e-6:
        raise UsageError(
            f"--split {text}: expected three shares above 0 that add up to 1",
            fix="pass for instance --split 0.8,0.1,0.1",
        )
    return shares[0], shares[1], shares[2]


def split_graph(graph: Graph, ratios: Sequence[float], seed: int, *, fewer: bool = False) -> Graph:
    """Pools the triples of all splits, drops duplicates, and splits them at random.

    For each entity and relation, the first triple in random order that contains it is kept in
    train, so nothing in valid or test is unseen. The other triples are assigned by the ratios. When
    these are too few and `fewer` is set, valid and test share all of them, as a note records.

    Raises:
        DataError: when too few triples can leave train.
    """
    rows = shuffled(distinct(graph), seed)
    free = np.flatnonzero(~needed_rows(rows))
    n_valid, n_test = round(len(rows) * ratios[1]), round(len(rows) * ratios[2])
    notes: list[str] = []
    if fewer and n_valid + n_test > len(free):
        notes.append(
            f"only {len(free):,} of {len(rows):,} distinct triples can leave train without making "
            f"an entity or a relation unseen; valid and test share these instead of "
            f"{n_valid:,} and {n_test:,}"
        )
        n_test = round(len(free) * n_test / (n_valid + n_test))
        n_valid = len(free) - n_test
    if n_valid < 1 or n_test < 1 or n_valid + n_test > len(free):
        raise DataError(
            f"{graph.name}: {len(free):,} of {counted(len(rows), 'distinct triple')} can leave "
            f"train without making an entity or a relation unseen; too few for {n_valid} valid and "
            f"{n_test} test triples",
            fix=f"pass --split with {'larger' if min(n_valid, n_test) < 1 else 'smaller'} shares "
            "of valid and test, or provide more triples",
        )
    test, valid = free[:n_test], free[n_test : n_test + n_valid]
    in_train = np.ones(len(rows), dtype=bool)
    in_train[test] = in_train[valid] = False
    split = graph.with_splits(rows[in_train], rows[valid], rows[test])
    return split.with_notes(*notes)


def distinct(graph: Graph) -> Triples:
    """The distinct triples of all splits, sorted by name and thus independent of the files."""
    entities, relations = graph.sorted_entities, graph.sorted_relations
    n = len(graph.entities), len(graph.relations)
    pooled = np.concatenate(
        [
            np.stack([entities.ranks[h], relations.ranks[r], entities.ranks[t]], axis=1)
            for h, r, t in (rows.T for rows in graph.splits.values())
        ]
    )
    rows = rows_of_keys(distinct_keys(triple_keys(pooled, *n)), *n)
    rows[:, [0, 2]] = entities.order[rows[:, [0, 2]]]
    rows[:, 1] = relations.order[rows[:, 1]]
    return rows


def shuffled(rows: NDArray[_T], seed: int) -> NDArray[_T]:
    """The rows in random order.

    They are sorted by raw bits of the generator, because numpy guarantees that these stay the same
    in all versions, unlike its permutations.
    """
    bits = np.random.PCG64(seed).random_raw(len(rows))
    return np.asarray(rows[np.argsort(bits, kind="stable")])


def needed_rows(rows: Triples) -> NDArray[np.bool_]:
    """A mask of the first row that contains each entity and each relation."""
    needed = np.zeros(len(rows), dtype=bool)
    for columns in ([0, 2], [1]):
        names = rows[:, columns].ravel()
        first = np.full(int(names.max(initial=-1)) + 1, -1, dtype=np.int64)
        # In reverse order, so that the first row is written last and remains.
        first[names[::-1]] = np.arange(len(names))[::-1] // len(columns)
        needed[first[first >= 0]] = True
    return needed
