"""Fills: values that replace missing vectors (zero, one, the mean, or noise)."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.features.format import Floats, Mask
from mmkgc_cli.features.seeded_random import digests, normals

FILLS = ("zero", "mean", "random", "one")
_ROWS = 4096


def fill_rows(
    vectors: Floats, present: Mask, fill: str, ids: Sequence[str], modality: str, seed: int
) -> None:
    """Fills the rows of `vectors`, float32 ``[n, d]``, that are not `present`, in place.

    "mean" is the mean of the present rows; "random" is N(0, 1), derived from the seed, the
    modality and the id. Neither depends on the order of the rows.

    Raises:
        UsageError: unknown fill.
        DataError: no row is present, so there is no mean.
    """
    if fill not in FILLS:
        raise UsageError(f"fill {fill!r} is unknown", fix=nearest(fill, FILLS))
    missing = np.flatnonzero(~present)
    if fill == "zero":
        vectors[missing] = 0
    elif fill == "one":
        vectors[missing] = 1
    elif fill == "mean":
        if not present.any():
            raise DataError(
                f"{modality}: no entity has a vector, so there is no mean to fill with",
                fix="choose another --fill, or a store that covers this graph",
            )
        vectors[missing] = _mean(vectors, present, ids)
    else:
        names = [ids[row] for row in missing.tolist()]
        vectors[missing] = normals(digests("fill", seed, [modality], names), vectors.shape[1])


def _mean(vectors: Floats, present: Mask, ids: Sequence[str]) -> Floats:
    """Mean of the present rows, summed in the order of their ids: the order affects rounding."""
    rows = np.flatnonzero(present).tolist()
    rows.sort(key=ids.__getitem__)
    total = np.zeros(vectors.shape[1], dtype=np.float64)
    for start in range(0, len(rows), _ROWS):
        total += vectors[rows[start : start + _ROWS]].sum(axis=0, dtype=np.float64)
    return np.asarray(total / len(rows), dtype=np.float32)
