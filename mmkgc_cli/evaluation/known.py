"""Known true triples: the filter of filtered ranking."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.triples import distinct_keys
from mmkgc_cli.sides import Side

Ids = NDArray[np.int64]

# Columns of the known entity and of the answer in a (head, relation, tail) row.
COLUMNS = {Side.tail: (0, 2), Side.head: (2, 0)}


@dataclass(frozen=True)
class RaggedArray:
    """A ragged array: row i is ``ids[ptr[i]:ptr[i + 1]]``."""

    ptr: Ids
    ids: Ids


class KnownTriples:
    """All true answers of every (known entity, relation) pair, on both sides.

    Memory: about three int64 per distinct triple and side.
    """

    def __init__(
        self, splits: Sequence[NDArray[np.int32]], n_entities: int, n_relations: int
    ) -> None:
        """Takes the union of `splits`, each ``[n, 3]`` with columns head, relation, tail."""
        self.n_entities = n_entities
        self.n_relations = n_relations
        triples = np.concatenate([split.astype(np.int64) for split in splits])
        if n_relations * n_entities**2 >= 2**63:
            raise DataError(
                f"the graph has {n_entities:,} entities and {n_relations:,} relations: expected "
                "relations * entities^2 below 2^63",
                fix="prepare a graph with fewer entities or relations",
            )
        self._triples: dict[Side, Ids] = {}
        self._pairs: dict[Side, Ids] = {}
        self._ptr: dict[Side, Ids] = {}
        self._answers: dict[Side, Ids] = {}
        for side in Side:
            keys, answers = self.keys(triples, side)
            triple_keys = distinct_keys(keys * n_entities + answers)
            self._triples[side] = triple_keys
            keys, self._answers[side] = np.divmod(triple_keys, n_entities)
            self._pairs[side], first = np.unique(keys, return_index=True)
            self._ptr[side] = np.append(first, len(keys))

    def keys(self, triples: NDArray[np.int64], side: Side) -> tuple[Ids, Ids]:
        """Query keys, relation * n_entities + known entity, and the answers; both ``[n]``."""
        known, answer = COLUMNS[side]
        return triples[:, 1] * self.n_entities + triples[:, known], triples[:, answer]

    def answers(self, keys: Ids, side: Side) -> RaggedArray:
        """All true answers of each key, ascending; an unknown key has none."""
        pairs = self._pairs[side]
        position = np.searchsorted(pairs, keys)
        hit = np.zeros(len(keys), dtype=bool)
        inside = position < len(pairs)
        hit[inside] = pairs[position[inside]] == keys[inside]
        start = np.where(hit, self._ptr[side][np.minimum(position, len(pairs) - 1)], 0)
        stop = np.where(hit, self._ptr[side][np.minimum(position, len(pairs) - 1) + 1], 0)
        lengths = stop - start
        ptr = np.concatenate([[0], np.cumsum(lengths)])
        # Concatenates the ranges start..stop without a loop.
        ids = np.arange(ptr[-1]) + np.repeat(start - ptr[:-1], lengths)
        return RaggedArray(ptr, self._answers[side][ids])

    def contains(self, keys: Ids, answers: Ids, side: Side) -> NDArray[np.bool_]:
        """Whether each (key, answer) pair is a known true triple."""
        triples = self._triples[side]
        triple_keys = keys * self.n_entities + answers
        position = np.minimum(np.searchsorted(triples, triple_keys), max(0, len(triples) - 1))
        if not len(triples):
            return np.zeros(len(keys), dtype=bool)
        return np.asarray(triples[position] == triple_keys)
