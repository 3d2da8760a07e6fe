"""Stores derived from stores: the union of several, and a store with masked vectors."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.format import Mask
from mmkgc_cli.features.metadata import SPACE
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.features.writing import FeatureBlock, write_store

PREFER = ("first", "last")


def merge_stores(
    stores: Sequence[FeatureStore], path: Path, prefer: str | None, compression: str | None
) -> Path:
    """Writes the union of stores with the same encoder, such as shards of an extraction.

    Ids keep the order of their first occurrence. When several stores have a vector for an id,
    `prefer` selects the first or the last one.

    Raises:
        UsageError: fewer than two stores.
        DataError: the stores differ in width or encoder; two stores have a vector for the same id
            and `prefer` is None; a store is completed or masked, which the union cannot record.
    """
    if len(stores) < 2:
        raise UsageError("merge: one store, expected two or more", fix="add another store")
    reference = stores[0]
    for store in stores:
        _check_space(reference, store)
    locations: dict[str, tuple[int, int]] = {}
    with_vector: set[str] = set()
    for number, store in enumerate(stores):
        for row, (name, present) in enumerate(zip(store.ids, store.present.tolist(), strict=True)):
            if name in with_vector and present and prefer is None:
                raise DataError(
                    f"{store.path}: {name!r} has a vector in {stores[locations[name][0]].path} too",
                    fix="select one with --prefer first or --prefer last",
                )
            if name not in locations or (present and (name not in with_vector or prefer == "last")):
                locations[name] = number, row
            if present:
                with_vector.add(name)
    location_array = np.array(list(locations.values()), dtype=np.int64)
    graphs = {store.metadata.graph for store in stores}
    metadata = replace(
        reference.metadata,
        graph=reference.metadata.graph if len(graphs) == 1 else "",
        source="",
        notes=(*reference.metadata.notes, "merged from " + ", ".join(
            f"{store.path.name} sha256 {store.checksums.sha256}" for store in stores)),
    )  # fmt: skip
    return write_store(
        path, metadata, _merged(stores, list(locations), location_array), n=len(locations),
        width=reference.width, dtype=reference.dtype.name, compression=compression,
    )  # fmt: skip


def _check_space(reference: FeatureStore, store: FeatureStore) -> None:
    if store.metadata.completion or store.metadata.mask:
        state = "completed" if store.metadata.completion else "masked"
        raise DataError(
            f"{store.path}: was {state}, and a union cannot record that",
            fix="merge the stores that it was made from",
        )
    pairs = {
        name: (getattr(reference.metadata, name), getattr(store.metadata, name)) for name in SPACE
    }
    pairs["width"] = str(reference.width), str(store.width)
    pairs["dtype"] = reference.dtype.name, store.dtype.name
    for name, (expected, value) in pairs.items():
        if value != expected:
            raise DataError(
                f"{store.path}: {name} {value!r}, but {reference.path} has {expected!r}",
                fix="merge stores of the same encoder and type only",
            )


def _merged(
    stores: Sequence[FeatureStore], ids: Sequence[str], location_array: NDArray[np.int64]
) -> Iterator[FeatureBlock]:
    step = stores[0].slab_rows
    for start in range(0, len(ids), step):
        numbers, rows = location_array[start : start + step].T
        vectors = np.empty((len(rows), stores[0].width), dtype=np.float32)
        observed = np.empty(len(rows), dtype=bool)
        for i, store in enumerate(stores):
            if (from_store := numbers == i).any():
                vectors[from_store] = store.read(rows[from_store])
                observed[from_store] = store.observed[rows[from_store]]
        yield FeatureBlock(ids[start : start + step], vectors, observed)


def write_masked(
    store: FeatureStore, rows: NDArray[np.int64], missing: Mask, path: Path, *,
    record: dict[str, Any], train_id: str,
) -> Path:  # fmt: skip
    """Writes rows of a store without the masked vectors.

    Args:
        store: the store to mask.
        rows: int64 ``[k]``, row numbers, in the order of the new store.
        missing: bool ``[k]``, True for vectors to remove.
        path: the new store.
        record: the arguments of the mask, stored as its metadata.
        train_id: identity of the train split that the mask depends on, or "".

    Raises:
        DataError: the store is masked or completed, or the new store cannot be written.
    """
    if store.metadata.mask or store.metadata.completion:
        state = "completed" if store.metadata.completion else "masked"
        raise DataError(
            f"{store.path}: was {state} already", fix="mask the store that it was made from"
        )

    def blocks() -> Iterator[FeatureBlock]:
        for start in range(0, len(rows), store.slab_rows):
            block_rows = rows[start : start + store.slab_rows]
            observed = store.observed[block_rows] & ~missing[start : start + len(block_rows)]
            ids = [store.ids[row] for row in block_rows.tolist()]
            yield FeatureBlock(ids, store.read(block_rows), observed)

    note = f"masked from {store.path.name} sha256 {store.checksums.sha256}"
    metadata = replace(
        store.metadata, mask=record, train_id=train_id, notes=(*store.metadata.notes, note)
    )
    return write_store(
        path, metadata, blocks(), n=len(rows), width=store.width, dtype=store.dtype.name,
        compression=store.compression,
    )  # fmt: skip
