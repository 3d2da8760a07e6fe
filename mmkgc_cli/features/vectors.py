"""Vectors in a file: what every reader returns, and how arrays become vectors."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.features.format import Floats, Mask

NUMBERS = "store the vectors as arrays of numbers, one vector per row"
UNSAFE = "add --unsafe-pickle if you trust its source, since loading it may run code"


@dataclass(frozen=True, eq=False)
class Source:
    """`n` vectors of one width, with `keys` if the file names them.

    `close` ends what `read` needs: a process or a temporary file.
    """

    path: Path
    n: int
    width: int
    dtype: str  # "float16" if the file has it, else "float32"
    keys: Sequence[str] | None
    read: Callable[[NDArray[np.int64]], Floats]  # rows -> vectors
    observed: Mask | None = None  # mask of the rows, if the file has one
    close: Callable[[], None] = field(default=lambda: None)

    def __enter__(self) -> Source:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


@dataclass(frozen=True)
class Opening:
    """How to open a file of vectors."""

    key: str | None = None  # name of the array in a file with several
    unsafe_pickle: bool = False  # read pickles, which may run code
    max_bytes: int | None = None  # of vectors that the file may declare
    scratch: Path | None = None  # folder for decompressed values


def array_source(path: Path, array: Any, reopen: Callable[[], Any] | None = None) -> Source:
    """An array or tensor ``[n, d]``, optionally with more axes of length 1.

    Pages of a memory-mapped array stay in memory after a read; `reopen` maps it for each read.
    """
    load = reopen or (lambda: array)
    if getattr(array.dtype, "kind", "f") not in "fiu":  # types of torch have no kind
        raise DataError(f"{path}: contains {array.dtype}, expected numbers", fix=NUMBERS)
    shape, dtype = tuple(int(size) for size in array.shape), dtype_name(array)
    matrix_shape = tuple(size for i, size in enumerate(shape) if i == 0 or size != 1)
    if len(matrix_shape) == 1 and len(shape) > 1:
        matrix_shape = (*matrix_shape, 1)
    if len(matrix_shape) != 2:
        raise DataError(
            f"{path}: an array of shape {shape}, expected [n, d] with one vector per row",
            fix="reshape the array",
        )

    def read(rows: NDArray[np.int64]) -> Floats:
        return floats(path, load()[rows]).reshape(len(rows), matrix_shape[1])

    return Source(path, *matrix_shape, dtype, None, read)


def keyed_source(path: Path, keys: Sequence[str], vector: Callable[[str], Any]) -> Source:
    """One vector per key; axes of length 1 are ignored. Values are read when they are needed."""
    if not keys:
        raise DataError(f"{path}: contains no array", fix=NUMBERS)
    first_vector = vector(keys[0])
    width = math.prod(first_vector.shape)

    def read(rows: NDArray[np.int64]) -> Floats:
        loaded = np.empty((len(rows), width), dtype=np.float32)
        for i, row in enumerate(rows.tolist()):
            value = vector(keys[row])
            if max(value.shape, default=1) != width or math.prod(value.shape) != width:
                raise DataError(
                    f"{path}: {keys[row]!r} has shape {tuple(value.shape)}, expected one vector of "
                    f"width {width}",
                    fix="store one vector of the same width per key",
                )
            loaded[i] = floats(path, value[()]).reshape(width)
        return loaded

    return Source(path, len(keys), width, dtype_name(first_vector), keys, read)


def dtype_name(array: Any) -> str:
    """The type of the vectors in a store: "float16" or "float32"."""
    return "float16" if str(array.dtype) in ("float16", "torch.float16") else "float32"


def floats(path: Path, values: Any) -> Floats:
    """Converts to numpy; bfloat16 becomes float32."""
    values = values.float().numpy() if hasattr(values, "float") else np.asarray(values)
    if values.dtype.kind not in "fiu":
        raise DataError(f"{path}: contains {values.dtype}, expected numbers", fix=NUMBERS)
    return np.asarray(values if values.dtype.kind == "f" else values.astype(np.float32))


def select_array(path: Path, arrays: Mapping[str, Any], key: str | None) -> Source:
    """Selects an array by name, or the only one with several rows; else all arrays are vectors."""
    if key is not None:
        if key not in arrays:
            raise UsageError(f"{path}: has no array {key!r}", fix=nearest(key, arrays))
        return array_source(path, arrays[key])
    tables = _tables(arrays)
    if len(tables) == 1:
        return array_source(path, arrays[tables[0]])
    if len(tables) > 1:
        raise UsageError(
            f"{path}: has {len(tables):,} arrays of several rows: "
            f"{', '.join(sorted(tables)[:5])}{', …' if len(tables) > 5 else ''}",
            fix="select one with --key NAME",
        )
    return keyed_source(path, list(arrays), arrays.__getitem__)


def needed_arrays(arrays: Mapping[str, Any], key: str | None) -> list[str]:
    """The names of the arrays that `select_array` reads, found from their shapes."""
    if key is not None:
        return [key] if key in arrays else []
    tables = _tables(arrays)
    return list(arrays) if not tables else tables if len(tables) == 1 else []


def _tables(arrays: Mapping[str, Any]) -> list[str]:
    return [name for name, array in arrays.items() if len(array.shape) > 1 and array.shape[0] > 1]
