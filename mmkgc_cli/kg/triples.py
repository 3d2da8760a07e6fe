"""Arrays of triples and their integer keys: deduplication and membership."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError

Triples = NDArray[np.int32]
Keys = NDArray[np.int64]


def triple_keys(rows: Triples, n_entities: int, n_relations: int) -> Keys:
    """One int64 per row of ``[n, 3]``, in the lexical order of head, relation, tail.

    Raises:
        DataError: when the vocabulary is too large for 63 bits.
    """
    if n_relations * n_entities**2 >= 2**63:
        raise DataError(
            f"{n_entities} entities and {n_relations} relations are too many for keys of 63 bits",
            fix="split the graph into smaller ones",
        )
    keys = rows[:, 0].astype(np.int64)
    keys *= n_relations
    keys += rows[:, 1]
    keys *= n_entities
    keys += rows[:, 2]
    return keys


def rows_of_keys(keys: Keys, n_entities: int, n_relations: int) -> Triples:
    """The rows ``[n, 3]`` of keys from `triple_keys`."""
    rows = np.empty((len(keys), 3), dtype=np.int32)
    pairs, rows[:, 2] = np.divmod(keys, n_entities)
    rows[:, 0], rows[:, 1] = np.divmod(pairs, n_relations)
    return rows


def distinct_keys(keys: Keys) -> Keys:
    """The distinct keys, ascending; sorting is several times faster than the hashing of numpy."""
    ascending = np.sort(keys)
    keep = np.ones(len(ascending), dtype=bool)
    keep[1:] = ascending[1:] != ascending[:-1]
    return np.asarray(ascending[keep])


def contained(few: Keys, many: Keys) -> NDArray[np.bool_]:
    """A mask of the keys of `few` that `many` contains; only `few` is sorted."""
    if not len(few):
        return np.zeros(0, dtype=bool)
    distinct, inverse = np.unique(few, return_inverse=True)
    positions = np.searchsorted(distinct, many)
    positions[positions == len(distinct)] = 0
    mask = np.zeros(len(distinct), dtype=bool)
    mask[positions[distinct[positions] == many]] = True
    return np.asarray(mask[inverse])


def first_occurrences(keys: Keys) -> NDArray[np.bool_]:
    """A mask of the keys that do not repeat an earlier one."""
    if len(distinct_keys(keys)) == len(keys):  # the usual case, and sorting is cheap
        return np.ones(len(keys), dtype=bool)
    first = np.zeros(len(keys), dtype=bool)
    first[np.unique(keys, return_index=True)[1]] = True
    return first
