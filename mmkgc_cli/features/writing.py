"""Atomic writing of a feature store, block by block."""

from __future__ import annotations

import io
import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import h5py
import numpy as np

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.checksums import USER_BLOCK, write_checksums
from mmkgc_cli.features.format import (
    COMPRESSIONS,
    DTYPES,
    FORMAT_VERSION,
    SLAB_BYTES,
    Floats,
    Mask,
    chunk_rows,
    text_array,
)
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.kg import identity, inspected
from mmkgc_cli.state.atomic import atomic_file
from mmkgc_cli.text import counted

_CONTROL = re.compile("[\x00-\x1f\x7f]")


@dataclass(frozen=True, eq=False)
class FeatureBlock:
    """Consecutive rows of a store: `vectors` is ``[k, width]``, the masks are bool ``[k]``.

    Vectors of rows that are neither observed nor generated are stored as zero. `generated` None
    means that no row is generated.
    """

    ids: Sequence[str]
    vectors: Floats
    observed: Mask
    generated: Mask | None = None

    @property
    def present(self) -> Mask:
        """Rows with a vector, bool ``[k]``."""
        return self.observed if self.generated is None else self.observed | self.generated

    def checked(self, location: Path | str, width: int, dtype: str) -> FeatureBlock:
        """Validates the rows and converts them to `dtype`, with zeros in missing rows.

        Raises:
            DataError: the width is wrong, an id is invalid, or a value is not finite in `dtype`;
                the message starts with `location`.
        """
        k = len(self.ids)
        if self.vectors.shape != (k, width):
            raise DataError(
                f"{location}: vectors of shape {self.vectors.shape}, expected {k} of width {width}",
                fix="give one vector of this width per id",
            )
        for name in self.ids:
            check_name(name, location)
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = self.vectors.astype(dtype)  # a copy
        vectors[~self.present] = 0
        finite = np.isfinite(vectors)
        if not finite.all():
            row, column = np.argwhere(~finite)[0].tolist()
            value = self.vectors[row, column]
            fix = "add --nan-is-missing, or correct the vectors"
            if np.isfinite(value):
                fix = "store the vectors as float32"
            bad_rows = int((~finite.all(axis=1)).sum())
            raise DataError(
                f"{location}: entity {self.ids[row]!r} has {value} in column {column}, which is "
                f"not a finite {dtype} ({counted(bad_rows, 'row')} with such values)",
                fix=fix,
            )
        generated = None if self.generated is None else self.generated.astype(np.bool_)
        return FeatureBlock(self.ids, vectors, self.observed.astype(np.bool_), generated)


def check_name(name: str, location: Path | str) -> None:
    """Checks that an id can be an entity name.

    Raises:
        DataError: the id is empty, not UTF-8, or contains a control character.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise DataError(f"{location}: the id {name!r} is not UTF-8", fix="rename it") from None
    if not size or _CONTROL.search(name):
        raise DataError(
            f"{location}: the id {name[:80]!r} is empty or contains a control character",
            fix="rename or remove it",
        )


def check_format(dtype: str, compression: str | None) -> None:
    """Checks the type and the compression of a store.

    Raises:
        UsageError: one of them is unknown.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r} is unknown", fix=f"use {' or '.join(DTYPES)}")
    if compression not in (None, *COMPRESSIONS):
        raise UsageError(
            f"compression {compression!r} is unknown", fix=f"use {' or '.join(COMPRESSIONS)}"
        )


def write_store(
    path: Path,
    metadata: Metadata,
    blocks: Iterable[FeatureBlock],
    *,
    n: int,
    width: int,
    dtype: str = "float32",
    compression: str | None = None,
) -> Path:
    """Writes a feature store atomically, with a few blocks in memory at a time.

    Args:
        path: the store.
        metadata: metadata of the store.
        blocks: the rows in order, `n` in total, with distinct ids.
        n: number of rows.
        width: length of a vector.
        dtype: "float32" or "float16".
        compression: None, "gzip" or "lzf".

    Raises:
        DataError: rows are invalid (`FeatureBlock.checked`), an id is repeated, or the store
            cannot be written; an existing file at `path` is then unchanged.
    """
    check_format(dtype, compression)
    if not n or not width:
        raise DataError(
            f"{path}: {counted(n, 'row')} of width {width}: nothing to store",
            fix="give at least one vector",
        )
    with atomic_file(path) as file:
        sink = _Sink(file)
        try:
            with h5py.File(sink, "w", userblock_size=USER_BLOCK) as store:
                _write_datasets(
                    store, sink, path, metadata, blocks,
                    n=n, width=width, dtype=dtype, compression=compression,
                )  # fmt: skip
        except BaseException:
            sink.raise_if_failed()  # the error of the storage is the cause
            raise
        sink.raise_if_failed()
        checksum = write_checksums(file)
    inspected.record_written("store", path, checksum)
    return path


def _write_datasets(
    store: h5py.File, sink: _Sink, path: Path, metadata: Metadata, blocks: Iterable[FeatureBlock],
    *, n: int, width: int, dtype: str, compression: str | None,
) -> None:  # fmt: skip
    row_bytes = width * np.dtype(dtype).itemsize
    rows = chunk_rows(n, row_bytes)
    vectors = store.create_dataset(
        "vectors", (n, width), np.dtype(dtype).newbyteorder("<"), chunks=(rows, width),
        compression=compression, shuffle=compression is not None,
    )  # fmt: skip
    observed = np.zeros(n, dtype=bool)
    generated: Mask | None = None
    ids: list[str] = []
    step = rows * max(1, SLAB_BYTES // (rows * row_bytes))
    for block in _regroup((block.checked(path, width, dtype) for block in blocks), step):
        start, stop = len(ids), len(ids) + len(block.ids)
        if stop > n:
            raise ValueError(f"{path}: more than the {n} rows that were announced")
        vectors[start:stop] = block.vectors
        observed[start:stop] = block.observed
        if block.generated is not None:
            generated = np.zeros(n, dtype=bool) if generated is None else generated
            generated[start:stop] = block.generated
        ids.extend(block.ids)
        sink.raise_if_failed()
    if len(ids) != n:
        raise ValueError(f"{path}: {len(ids)} rows, {n} were announced")
    check_distinct(ids, path)
    names = text_array([name.encode() for name in ids])
    store.create_dataset(
        "ids", data=names, chunks=(chunk_rows(n, names.itemsize),),
        compression="gzip", compression_opts=1,
    )  # fmt: skip
    for name, mask in (("observed", observed), ("generated", generated)):
        if mask is not None:
            store.create_dataset(name, data=mask, chunks=(chunk_rows(n, 1),))
    store.attrs["format_version"] = FORMAT_VERSION
    store.attrs["entities_id"] = identity.entities_id(identity.SortedNames.from_names(ids))
    for key, value in metadata.attributes().items():
        store.attrs[key] = value


def check_distinct(ids: Sequence[str], location: Path | str) -> None:
    """Checks that ids are distinct.

    Raises:
        DataError: an id is repeated.
    """
    first_row: dict[str, int] = {}
    for row, name in enumerate(ids):
        if first_row.setdefault(name, row) != row:
            raise DataError(
                f"{location}: the id {name!r} is repeated, in rows {first_row[name]} and {row}",
                fix="remove one of the rows",
            )


def _regroup(blocks: Iterable[FeatureBlock], size: int) -> Iterator[FeatureBlock]:
    """Regroups rows into blocks of `size`, so that each chunk is written once."""
    pending: list[FeatureBlock] = []
    count = 0
    for block in blocks:
        pending.append(block)
        count += len(block.ids)
        while count >= size:
            joined = _join(pending)
            yield _slice(joined, 0, size)
            remainder = _slice(joined, size, count)
            pending, count = [remainder], count - size
    if count:
        yield _join(pending)


def _join(blocks: Sequence[FeatureBlock]) -> FeatureBlock:
    if len(blocks) == 1:
        return blocks[0]
    generated = None
    if any(block.generated is not None for block in blocks):
        generated = np.concatenate(
            [np.zeros(len(b.ids), dtype=bool) if b.generated is None else b.generated
             for b in blocks]
        )  # fmt: skip
    return FeatureBlock(
        [name for block in blocks for name in block.ids],
        np.concatenate([block.vectors for block in blocks]),
        np.concatenate([block.observed for block in blocks]),
        generated,
    )


def _slice(rows: FeatureBlock, start: int, stop: int) -> FeatureBlock:
    return FeatureBlock(
        rows.ids[start:stop],
        rows.vectors[start:stop],
        rows.observed[start:stop],
        None if rows.generated is None else rows.generated[start:stop],
    )


class _Sink(io.RawIOBase):
    """A file for the HDF5 library, which may crash or go on when a callback fails.

    The first exception is kept, whatever its kind: HDF5 ignores some of them, and the store would
    lack blocks. Later calls do nothing and report success to HDF5.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._file = file
        self._error: BaseException | None = None

    def raise_if_failed(self) -> None:
        """Raises the exception of the first call that failed, if there was one."""
        if self._error:
            raise self._error

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        return self._try(lambda: self._file.write(data), size)

    def truncate(self, size: int | None = None) -> int:
        return self._try(lambda: self._file.truncate(size), size or 0)

    def flush(self) -> None:
        self._try(lambda: self._file.flush() or 0, 0)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._try(lambda: self._file.seek(offset, whence), offset)

    def tell(self) -> int:
        return self._try(self._file.tell, 0)

    def readinto(self, buffer: Any) -> int:
        size = memoryview(buffer).nbytes
        return self._try(lambda: int(self._file.readinto(buffer)), size)  # type: ignore[attr-defined]

    def _try(self, action: Callable[[], int], otherwise: int) -> int:
        if self._error is None:
            try:
                return action()
            except BaseException as error:
                self._error = error
        return otherwise
