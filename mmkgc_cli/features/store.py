"""A feature store on disk, read lazily: ids, vectors, and masks of observed and generated rows."""

from __future__ import annotations

import functools
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.checksums import CheckedFile, open_store, read_checksums
from mmkgc_cli.features.format import SLAB_BYTES, Floats, Mask, hdf5_errors
from mmkgc_cli.features.structure import (
    read_header,
    read_ids,
    read_mask,
    require_inspected,
)


class FeatureStore:
    """Vectors of one modality by entity id.

    Opening reads the user block and a few attributes. Ids and masks are read on first use, vectors
    by block. A store can be pickled and used after a fork: each process opens its own handle.
    """

    def __init__(self, path: Path) -> None:
        """Opens a store.

        Raises:
            DataError: the file is missing, truncated, damaged, or of another format version.
        """
        self.path = path
        with open_store(path) as file:
            self.checksums = read_checksums(path, file)
        self._handle: tuple[int, h5py.File] | None = None
        with hdf5_errors(path):
            header = read_header(path, self._file())
        self.metadata, self.entities_id = header.metadata, header.entities_id
        self.n, self.width, self.dtype = header.n, header.width, header.dtype
        self.chunk_rows, self.compression = header.chunk_rows, header.compression

    def __enter__(self) -> FeatureStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_handle": None}

    def close(self) -> None:
        """Closes the file; the next read opens it again."""
        if self._handle and self._handle[0] == os.getpid():
            self._handle[1].close()
        self._handle = None

    def _file(self) -> h5py.File:
        if self._handle is None or self._handle[0] != os.getpid():
            self._handle = os.getpid(), self._open()
        return self._handle[1]

    def _open(self) -> h5py.File:
        file = open_store(self.path)
        try:
            # The file may have been replaced.
            if read_checksums(self.path, file) != self.checksums:
                raise DataError(
                    f"{self.path}: has been replaced since it was opened",
                    fix="run the command again",
                )
            require_inspected(self.path, file, self.checksums)
            # No chunk cache: `RowCache` is one.
            return h5py.File(CheckedFile(self.path, self.checksums, file), "r", rdcc_nbytes=0)
        except BaseException:
            file.close()
            raise

    @functools.cached_property
    def ids(self) -> list[str]:
        """The distinct entity ids by row."""
        return read_ids(self.path, self._file(), self.n)

    @functools.cached_property
    def observed(self) -> Mask:
        """Observed rows, bool ``[n]``."""
        return self._mask("observed")

    @functools.cached_property
    def generated(self) -> Mask | None:
        """Generated rows, bool ``[n]``; None in a store without completion."""
        with hdf5_errors(self.path):
            has_generated = "generated" in self._file()
        return self._mask("generated") if has_generated else None

    @property
    def present(self) -> Mask:
        """Rows with a vector, observed or generated, bool ``[n]``."""
        return self.observed if self.generated is None else self.observed | self.generated

    def _mask(self, name: str) -> Mask:
        return read_mask(self.path, self._file(), name, self.n)

    def verify(self) -> None:
        """Reads the whole file and verifies its checksums.

        Raises:
            DataError: the file is damaged.
        """
        with CheckedFile(self.path, self.checksums, open_store(self.path)) as file:
            file.verify()

    def slab(self, start: int, stop: int) -> Floats:
        """Rows `start` to `stop` in the stored type."""
        out = np.empty((stop - start, self.width), dtype=self.dtype)
        self._read_into(out, start)
        return out

    def slabs(self) -> Iterator[tuple[int, Floats]]:
        """Iterates over all rows in slabs, each with the number of its first row."""
        for start in range(0, self.n, self.slab_rows):
            yield start, self.slab(start, min(start + self.slab_rows, self.n))

    @property
    def slab_rows(self) -> int:
        """Rows per slab, a multiple of the rows per chunk."""
        chunk_bytes = self.chunk_rows * self.width * int(self.dtype.itemsize)
        return self.chunk_rows * max(1, SLAB_BYTES // chunk_bytes)

    def read(self, rows: NDArray[np.int64] | None = None, out: Floats | None = None) -> Floats:
        """Reads vectors of rows in any order; each chunk is read once.

        Args:
            rows: int64 ``[k]``, row numbers; None for all.
            out: float32 ``[k, width]`` to write into; None allocates it.

        Returns:
            float32 ``[k, width]``.

        Raises:
            DataError: the file is damaged.
        """
        count = self.n if rows is None else len(rows)
        if out is None:
            out = np.empty((count, self.width), dtype=np.float32)
        if rows is None or _consecutive(rows):
            first_row = int(rows[0]) if rows is not None and count else 0
            self._read_straight(out, first_row)
        else:
            self._read_scattered(out, rows)
        return out

    def _read_straight(self, out: Floats, first_row: int) -> None:
        step = self.slab_rows
        for start in range(first_row - first_row % step, first_row + len(out), step):
            low, high = max(start, first_row), min(start + step, first_row + len(out))
            part = out[low - first_row : high - first_row]
            if self.dtype == out.dtype and part.flags.c_contiguous:
                self._read_into(part, low)
            else:  # numpy converts float16 faster than HDF5
                part[:] = self.slab(low, high)

    def _read_scattered(self, out: Floats, rows: NDArray[np.int64]) -> None:
        order = np.argsort(rows, kind="stable")
        ascending = rows[order]
        chunks = np.unique(ascending // self.chunk_rows)
        # Adjacent chunks of a slab are read together.
        slab = chunks // (self.slab_rows // self.chunk_rows)
        cuts = np.flatnonzero((np.diff(chunks) > 1) | (np.diff(slab) > 0)) + 1
        for group in np.split(chunks, cuts):
            start = int(group[0]) * self.chunk_rows
            stop = min((int(group[-1]) + 1) * self.chunk_rows, self.n)
            low, high = np.searchsorted(ascending, [start, stop])
            out[order[low:high]] = self.slab(start, stop)[ascending[low:high] - start]

    def _read_into(self, out: Floats, start: int) -> None:
        if len(out):
            with hdf5_errors(self.path):
                self._file()["vectors"].read_direct(out, np.s_[start : start + len(out)])


def _consecutive(rows: NDArray[np.int64]) -> bool:
    return len(rows) == 0 or bool((np.diff(rows) == 1).all())
