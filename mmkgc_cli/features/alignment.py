"""A feature store as a graph sees it: rows by entity number, whatever the order of the store."""

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
    """A store with the row of every entity of a graph; `observed` and `generated` are bool [E]."""

    store: FeatureStore
    rows: NDArray[np.int64]
    straight: bool  # whether the rows are those of the file, in its order
    observed: Mask
    generated: Mask

    @property
    def present(self) -> Mask:
        """Which entities have a vector, observed or generated, bool ``[E]``."""
        return self.observed | self.generated

    def coverage(self) -> dict[str, Any]:
        """How many entities have what."""
        return {
            "entities": len(self.rows),
            "observed": int(self.observed.sum()),
            "generated": int(self.generated.sum()),
            "missing": int((~self.present).sum()),
            "order": "as in the graph" if self.straight else "realigned by id",
            "other_ids": self.store.n - len(self.rows),
        }

    def read(self, entities: NDArray[np.int64] | None = None, out: Floats | None = None) -> Floats:
        """Vectors of entities, float32 ``[k, d]``, zero where there is none; None reads them all.

        Raises:
            DataError: when the store is damaged.
        """
        return self.store.read(self.rows if entities is None else self.rows[entities], out)

    def to(self, device: torch.device) -> Tensor:
        """Vectors of all entities on a device, float32 ``[E, d]``; the host holds a part at a time.

        Raises:
            DataError: when the store is damaged.
        """
        import torch

        table = torch.empty((len(self.rows), self.store.width), device=device)
        # In the order of the file, so that every chunk is read once.
        entities = np.argsort(self.rows, kind="stable")
        step = self.store.slab_rows
        for start in range(0, len(entities), step):
            chosen = entities[start : start + step]
            part = torch.from_numpy(self.store.read(self.rows[chosen]))
            table[torch.from_numpy(chosen).to(device)] = part.to(device)
        return table


def align(store: FeatureStore, graph: Graph) -> AlignedFeatures:
    """Finds the row of every entity of `graph`, by id.

    Raises:
        DataError: naming both when an entity is not among the ids of the store.
    """
    n = len(graph.entities)
    straight = store.ids[:n] == list(graph.entities)
    if straight:
        rows = np.arange(n, dtype=np.int64)
    else:
        row_of = {name: row for row, name in enumerate(store.ids)}
        rows = np.array([row_of.get(name, -1) for name in graph.entities], dtype=np.int64)
    if (rows < 0).any():
        foreign = np.flatnonzero(rows < 0)
        made_for = f" (made for {store.about.graph!r})" if store.about.graph else ""
        raise DataError(
            f"{store.path}{made_for}: does not fit the graph {graph.name!r}: "
            f"{len(foreign):,} of its {counted(n, 'entity')}, the first "
            f"{graph.entities[foreign[0]]!r}, are not among the {counted(store.n, 'id')} of the "
            "store; import or extract it for this graph"
        )
    none = np.zeros(n, dtype=bool)
    generated = none if store.generated is None else store.generated[rows]
    return AlignedFeatures(store, rows, straight, store.observed[rows], generated)


class RowCache:
    """Vectors of a few entities at a time, for a store that does not fit into memory.

    Chunks come from the disk when an entity in them is asked for; those used last stay, as many as
    `max_bytes` hold.
    """

    def __init__(self, features: AlignedFeatures, max_bytes: int) -> None:
        store = features.store
        self._features = features
        self._most = max(1, max_bytes // (store.chunk_rows * store.width * store.dtype.itemsize))
        self._chunks: OrderedDict[int, Floats] = OrderedDict()
        self.hits = self.misses = 0  # chunks found, and chunks read

    @property
    def nbytes(self) -> int:
        """What the cached chunks take."""
        return sum(chunk.nbytes for chunk in self._chunks.values())

    def take(self, entities: Tensor) -> Tensor:
        """Vectors of entities, int64 of any shape, on their device: float32 ``[*shape, d]``.

        Raises:
            DataError: when the store is damaged.
        """
        import torch

        store = self._features.store
        rows = self._features.rows[entities.cpu().numpy().reshape(-1)]
        chunk, place = np.divmod(rows, store.chunk_rows)
        out = np.empty((len(rows), store.width), dtype=np.float32)
        order = np.argsort(chunk, kind="stable")
        numbers, starts = np.unique(chunk[order], return_index=True)
        for number, chosen in zip(numbers.tolist(), np.split(order, starts[1:]), strict=True):
            out[chosen] = self._chunk(number)[place[chosen]]
        return torch.from_numpy(out).reshape(*entities.shape, store.width).to(entities.device)

    def _chunk(self, number: int) -> Floats:
        if number in self._chunks:
            self.hits += 1
            self._chunks.move_to_end(number)
            return self._chunks[number]
        self.misses += 1
        while len(self._chunks) >= self._most:
            self._chunks.popitem(last=False)
        store = self._features.store
        start = number * store.chunk_rows
        chunk = store.slab(start, min(start + store.chunk_rows, store.n))
        self._chunks[number] = chunk
        return chunk
