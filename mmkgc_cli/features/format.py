"""Format of a feature store: version, types, chunk sizes, and errors of the HDF5 library.

HDF5 only reads blocks that `checksums` has verified.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.text import reason_of

FORMAT_VERSION = 1
DTYPES = ("float32", "float16")
COMPRESSIONS = ("gzip", "lzf")

_CHUNK_BYTES = 1 << 18
SLAB_BYTES = 1 << 24  # size of one read

Floats = NDArray[np.floating[Any]]
Mask = NDArray[np.bool_]


def chunk_rows(n: int, row_bytes: int) -> int:
    """Rows per chunk of a dataset of `n` rows."""
    return max(1, min(n, _CHUNK_BYTES // max(1, row_bytes)))


@contextlib.contextmanager
def hdf5_errors(path: Path) -> Iterator[None]:
    """Converts errors that the HDF5 library raises on a damaged file into a `DataError`."""
    try:
        yield
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise DataError(
            f"{path}: damaged, or changed since it was written ({reason_of(error)})",
            fix="make the store again with `mmkgc extract` or `mmkgc features import`",
        ) from error


def text_array(values: list[bytes]) -> NDArray[np.bytes_]:
    """UTF-8 strings of fixed width, which HDF5 reads much faster than those of variable width."""
    return np.array(values, dtype=h5py.string_dtype("utf-8", max(1, *map(len, values), 1)))
