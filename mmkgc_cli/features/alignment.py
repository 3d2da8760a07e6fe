"""Alignment of a feature store with a graph: rows by entity number, in any order of the store."""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.format import Floats, Mask
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.text import counted

if TYPE_CHECKING:  # torch is imported where vectors are turned into tensors
    import torch
    from torch import Tensor


@dataclass(frozen=True, eq=False)
class AlignedFeatures:
    """A store and the row of each entity of a graph; `observed` and `generated` are bool [E]."""

    store: FeatureStore
    rows: NDArray[np.int64]
    in_file_order: bool  # whether `rows` is 0, 1, 2, …
    observed: Mask
    generated: Mask

    @property
    def present(self) -> Mask:
        """Entities that have a vector, observed or generated, bool ``[E]``."""
        return self.observed | self.generated

    def coverage(self) -> dict[str, Any]:
        """Counts of entities with observed, generated and missing vectors, as plain JSON."""
        return {
            "entities": len(self.rows),
            "observed": int(self.observed.sum()),
            "generated": int(self.generated.sum()),
            "missing": int((~self.present).sum()),
            "order": "as in the graph" if self.in_file_order else "realigned by id",
            "other_ids": self.store.n - len(self.rows),
        }

    def read(self, entities: NDArray[np.int64] | None = None, out: Floats | None = None) -> Floats:
        """Reads vectors of entities, float32 ``[k, d]``; missing vectors are zero.

        Args:
            entities: int64 ``[k]``, entity numbers; None for all.
            out: float32 ``[k, d]`` to write into.

        Raises:
            DataError: the store is damaged.
        """
        return self.store.read(self.rows if entities is None else self.rows[entities], out)

    def to(self, device: torch.device) -> Tensor:
        """Copies the vectors of all entities to a device, float32 ``[E, d]``, in small batches.

        Raises:
            DataError: the store is damaged.
        """
        import torch

        table = torch.empty((len(self.rows), self.store.width), device=device)
        # In file order, so that each chunk is read once.
        entities = np.argsort(self.rows, kind="stable")
        step = self.store.slab_rows
        for start in range(0, len(entities), step):
            batch = entities[start : start + step]
            vectors = torch.from_numpy(self.store.read(self.rows[batch]))
            table[torch.from_numpy(batch).to(device)] = vectors.to(device)
        return table


def align(store: FeatureStore, graph: Graph) -> AlignedFeatures:
    """Finds the row of each entity of `graph` by id.

    Raises:
        DataError: an entity is not among the ids of the store.
    """
    n = len(graph.entities)
    in_file_order = store.ids[:n] == list(graph.entities)
    if in_file_order:
        rows = np.arange(n, dtype=np.int64)
    else:
        row_of = {name: row for row, name in enumerate(store.ids)}
        rows = np.array([row_of.get(name, -1) for name in graph.entities], dtype=np.int64)
    if (rows < 0).any():
        absent = np.flatnonzero(rows < 0)
        origin = f" (made for {store.metadata.graph!r})" if store.metadata.graph else ""
        raise DataError(
            f"{store.path}{origin}: does not fit the graph {graph.name!r}: "
            f"{len(absent):,} of its {counted(n, 'entity')}, the first "
            f"{graph.entities[absent[0]]!r}, are not among the {counted(store.n, 'id')} of the "
            "store",
            fix="make a store for this graph with `mmkgc features import` or `mmkgc extract`",
        )
    generated = np.zeros(n, dtype=bool) if store.generated is None else store.generated[rows]
    return AlignedFeatures(store, rows, in_file_order, store.observed[rows], generated)


class RowCache:
    """An LRU cache of chunks, for stores that do not fit into memory.

    A chunk is read when one of its entities is requested. The most recently used chunks stay in
    memory, up to `max_bytes`.
    """

    def __init__(self, features: AlignedFeatures, max_bytes: int) -> None:
        store = features.store
        self._features = features
        self._capacity = max(
            1, max_bytes // (store.chunk_rows * store.width * store.dtype.itemsize)
        )
        self._chunks: OrderedDict[int, Floats] = OrderedDict()
        self.hits = self.misses = 0  # in chunks

    @property
    def nbytes(self) -> int:
        """Size of the cached chunks in bytes."""
        return sum(chunk.nbytes for chunk in self._chunks.values())

    def take(self, entities: Tensor) -> Tensor:
        """Looks up vectors of entities, int64 of any shape: float32 ``[*shape, d]`` on its device.

        Raises:
            DataError: the store is damaged.
        """
        import torch

        store = self._features.store
        rows = self._features.rows[entities.cpu().numpy().reshape(-1)]
        chunks, offsets = np.divmod(rows, store.chunk_rows)
        out = np.empty((len(rows), store.width), dtype=np.float32)
        order = np.argsort(chunks, kind="stable")
        numbers, starts = np.unique(chunks[order], return_index=True)
        for number, positions in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            out[positions] = self._chunk(number)[offsets[positions]]
        return torch.from_numpy(out).reshape(*entities.shape, store.width).to(entities.device)

    def _chunk(self, number: int) -> Floats:
        if number in self._chunks:
            self.hits += 1
            self._chunks.move_to_end(number)
            return self._chunks[number]
        self.misses += 1
        while len(self._chunks) >= self._capacity:
            self._chunks.popitem(last=False)
        store = self._features.store
        start = number * store.chunk_rows
        chunk = store.slab(start, min(start + store.chunk_rows, store.n))
        self._chunks[number] = chunk
        return chunk
