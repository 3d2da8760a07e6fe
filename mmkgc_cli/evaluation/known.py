"""Which triples are known to be true: the filter of filtered ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.triples import distinct_keys
from mmkgc_cli.sides import Side

Ids = NDArray[np.int64]

# Column of the known entity and of the one looked for, in a (head, relation, tail) row.
COLUMNS = {Side.tail: (0, 2), Side.head: (2, 0)}


@dataclass(frozen=True)
class Rows:
    """A ragged array: row i is ``ids[ptr[i]:ptr[i + 1]]``."""

    ptr: Ids
    ids: Ids


class KnownTriples:
    """All true answers of every (known entity, relation), on both sides.

    Memory is some three int64 a distinct triple and side.
    """

    def __init__(
        self, splits: Sequence[NDArray[np.int32]], n_entities: int, n_relations: int
    ) -> None:
        """Joins `splits`, each ``[n, 3]`` as head, relation, tail; duplicates count once."""
        self.n_entities = n_entities
        self.n_relations = n_relations
        triples = np.concatenate([split.astype(np.int64) for split in splits])
        if n_relations * n_entities**2 >= 2**63:
            raise DataError(f"{n_entities} entities and {n_relations} relations are too many")
        self._triples: dict[Side, Ids] = {}
        self._pairs: dict[Side, Ids] = {}
        self._ptr: dict[Side, Ids] = {}
        self._answers: dict[Side, Ids] = {}
        for side in Side:
            keys, answers = self.keys(triples, side)
            both = distinct_keys(keys * n_entities + answers)
            self._triples[side] = both
            keys, self._answers[side] = np.divmod(both, n_entities)
            self._pairs[side], first = np.unique(keys, return_index=True)
            self._ptr[side] = np.append(first, len(keys))

    def keys(self, triples: NDArray[np.int64], side: Side) -> tuple[Ids, Ids]:
        """One number a (relation, known entity) pair, relation-major, and the entity looked for."""
        known, wanted = COLUMNS[side]
        return triples[:, 1] * self.n_entities + triples[:, known], triples[:, wanted]

    def answers(self, keys: Ids, side: Side) -> Rows:
        """All true answers of each key, ascending; none for a key never seen."""
        pairs = self._pairs[side]
        at = np.searchsorted(pairs, keys)
        hit = np.zeros(len(keys), dtype=bool)
        inside = at < len(pairs)
        hit[inside] = pairs[at[inside]] == keys[inside]
        start = np.where(hit, self._ptr[side][np.minimum(at, len(pairs) - 1)], 0)
        stop = np.where(hit, self._ptr[side][np.minimum(at, len(pairs) - 1) + 1], 0)
        lengths = stop - start
        ptr = np.concatenate([[0], np.cumsum(lengths)])
        # Concatenated ranges start..stop without a loop.
        ids = np.arange(ptr[-1]) + np.repeat(start - ptr[:-1], lengths)
        return Rows(ptr, self._answers[side][ids])

    def contains(self, keys: Ids, answers: Ids, side: Side) -> NDArray[np.bool_]:
        """Whether each (key, answer) is known to be true."""
        triples = self._triples[side]
        wanted = keys * self.n_entities + answers
        at = np.minimum(np.searchsorted(triples, wanted), max(0, len(triples) - 1))
        if not len(triples):
            return np.zeros(len(keys), dtype=bool)
        return np.asarray(triples[at] == wanted)
