"""Stores made from stores: several in one, and one with vectors taken away."""

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
from mmkgc_cli.features.writing import Rows, write_store

PREFER = ("first", "last")


def merge_stores(
    stores: Sequence[FeatureStore], path: Path, prefer: str | None, compression: str | None
) -> Path:
    """Writes the union of stores of one space: shards of an extraction, or old rows and new ones.

    Ids keep the order in which they first come. Where several stores hold a vector for an id, the
    first or the last counts, as `prefer` says; an unobserved row gives way to any.

    Raises:
        UsageError: for fewer than two stores.
        DataError: when the stores differ in width or encoder, or have an id in common and `prefer`
            is None; when one was completed or masked, since what comes out would be neither.
    """
    if len(stores) < 2:
        raise UsageError("merge: give two stores or more")
    first = stores[0]
    for store in stores:
        _check_space(first, store)
    place: dict[str, tuple[int, int]] = {}
    vector: set[str] = set()
    for number, store in enumerate(stores):
        for row, (name, present) in enumerate(zip(store.ids, store.present.tolist(), strict=True)):
            if name in vector and present and prefer is None:
                raise DataError(
                    f"{store.path}: {name!r} has a vector in {stores[place[name][0]].path} too; "
                    "say which counts with --prefer first|last"
                )
            if name not in place or (present and (name not in vector or prefer == "last")):
                place[name] = number, row
            if present:
                vector.add(name)
    where = np.array(list(place.values()), dtype=np.int64)
    graphs = {store.about.graph for store in stores}
    about = replace(
        first.about,
        graph=first.about.graph if len(graphs) == 1 else "",
        source="",
        notes=(*first.about.notes, "merged from " + ", ".join(
            f"{store.path.name} sha256 {store.seal.sha256}" for store in stores)),
    )  # fmt: skip
    return write_store(
        path, about, _merged(stores, list(place), where), n=len(place), width=first.width,
        dtype=first.dtype.name, compression=compression,
    )  # fmt: skip


def _check_space(first: FeatureStore, store: FeatureStore) -> None:
    if store.about.completion or store.about.mask:
        what = "completed" if store.about.completion else "masked"
        raise DataError(f"{store.path}: was {what}; merge what it was made from")
    pairs = {name: (getattr(first.about, name), getattr(store.about, name)) for name in SPACE}
    pairs["width"] = str(first.width), str(store.width)
    pairs["dtype"] = first.dtype.name, store.dtype.name
    for name, (expected, found) in pairs.items():
        if found != expected:
            raise DataError(
                f"{store.path}: {name} {found!r}, but {first.path} has {expected!r}: their vectors "
                "do not lie in one space"
            )


def _merged(
    stores: Sequence[FeatureStore], ids: Sequence[str], where: NDArray[np.int64]
) -> Iterator[Rows]:
    step = stores[0].slab_rows
    for start in range(0, len(ids), step):
        number, row = where[start : start + step].T
        vectors = np.empty((len(row), stores[0].width), dtype=np.float32)
        observed = np.empty(len(row), dtype=bool)
        for i, store in enumerate(stores):
            if (mine := number == i).any():
                vectors[mine] = store.read(row[mine])
                observed[mine] = store.observed[row[mine]]
        yield Rows(ids[start : start + step], vectors, observed)


def write_masked(
    store: FeatureStore, rows: NDArray[np.int64], missing: Mask, record: dict[str, Any],
    train_id: str, path: Path,
) -> Path:  # fmt: skip
    """Writes the chosen rows of a store without the vectors that go missing.

    Args:
        store: to take from.
        rows: int64 ``[k]``, which rows, in this order.
        missing: bool ``[k]``, whose vectors go.
        record: the arguments of the mask.
        train_id: of the train split that the mask counted; empty if it did not.
        path: of the new store.

    Raises:
        DataError: when the store was masked or completed before, or the storage refuses.
    """
    if store.about.mask or store.about.completion:
        what = "completed" if store.about.completion else "masked"
        raise DataError(f"{store.path}: was {what} already; mask what it was made from")

    def blocks() -> Iterator[Rows]:
        for start in range(0, len(rows), store.slab_rows):
            chosen = rows[start : start + store.slab_rows]
            kept = store.observed[chosen] & ~missing[start : start + len(chosen)]
            yield Rows([store.ids[row] for row in chosen.tolist()], store.read(chosen), kept)

    note = f"masked from {store.path.name} sha256 {store.seal.sha256}"
    about = replace(store.about, mask=record, train_id=train_id, notes=(*store.about.notes, note))
    return write_store(
        path, about, blocks(), n=len(rows), width=store.width, dtype=store.dtype.name,
        compression=store.compression,
    )  # fmt: skip
