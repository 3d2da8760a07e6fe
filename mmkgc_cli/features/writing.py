"""Writing a feature store in one go, block by block, whatever its size."""

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
from mmkgc_cli.features.checksums import USER_BLOCK, seal
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
from mmkgc_cli.features.metadata import About
from mmkgc_cli.kg import identity
from mmkgc_cli.state.atomic import atomic_file
from mmkgc_cli.text import counted

_CONTROL = re.compile("[\x00-\x1f\x7f]")


@dataclass(frozen=True, eq=False)
class Rows:
    """Some rows of a store.

    `vectors` is ``[k, width]``; what it holds where a row is neither observed nor generated is not
    kept. `generated` None stands for no row.
    """

    ids: Sequence[str]
    vectors: Floats
    observed: Mask
    generated: Mask | None = None

    @property
    def present(self) -> Mask:
        """Which rows hold a vector."""
        return self.observed if self.generated is None else self.observed | self.generated

    def checked(self, where: Path | str, width: int, dtype: str) -> Rows:
        """The same in `dtype`, absent rows zero, ids and values in order.

        Raises:
            DataError: naming `where` and the entity, for another width, an id that is no name, and
                values that are not finite, or not in `dtype`.
        """
        k = len(self.ids)
        if self.vectors.shape != (k, width):
            raise DataError(
                f"{where}: vectors of shape {self.vectors.shape}, expected {k} of width {width}"
            )
        for name in self.ids:
            check_name(name, where)
        with np.errstate(over="ignore", invalid="ignore"):
            vectors = self.vectors.astype(dtype)  # a copy
        vectors[~self.present] = 0
        finite = np.isfinite(vectors)
        if not finite.all():
            row, column = np.argwhere(~finite)[0].tolist()
            value = self.vectors[row, column]
            advice = "; store it as float32" if np.isfinite(value) else ""
            bad = int((~finite.all(axis=1)).sum())
            raise DataError(
                f"{where}: entity {self.ids[row]!r} holds {value} in column {column}, which is no "
                f"finite {dtype} ({counted(bad, 'row')} like it){advice}"
            )
        generated = None if self.generated is None else self.generated.astype(np.bool_)
        return Rows(self.ids, vectors, self.observed.astype(np.bool_), generated)


def check_name(name: str, where: Path | str) -> None:
    """Refuses what no graph would have as an entity.

    Raises:
        DataError: for an empty name, one with control characters, or one that is not UTF-8.
    """
    try:
        size = len(name.encode())
    except UnicodeEncodeError:
        raise DataError(f"{where}: the id {name!r} is not UTF-8") from None
    if not size or _CONTROL.search(name):
        raise DataError(f"{where}: the id {name[:80]!r} is empty or holds a control character")


def check_format(dtype: str, compression: str | None) -> None:
    """Refuses what a store cannot be written as.

    Raises:
        UsageError: naming what it can.
    """
    if dtype not in DTYPES:
        raise UsageError(f"dtype {dtype!r}: expected {' or '.join(DTYPES)}")
    if compression not in (None, *COMPRESSIONS):
        raise UsageError(f"compression {compression!r}: expected {' or '.join(COMPRESSIONS)}")


def write_store(
    path: Path,
    about: About,
    blocks: Iterable[Rows],
    *,
    n: int,
    width: int,
    dtype: str = "float32",
    compression: str | None = None,
) -> Path:
    """Writes a feature store atomically, holding no more than a few blocks in memory.

    Args:
        path: of the store.
        about: its attributes.
        blocks: the rows in order, `n` in all, their ids distinct.
        n: rows.
        width: of a vector.
        dtype: "float32" or "float16".
        compression: None, "gzip" or "lzf".

    Raises:
        DataError: when rows cannot be stored (`Rows.checked`), an id comes twice, or the storage
            refuses; `path` is then as it was before.
    """
    check_format(dtype, compression)
    if not n or not width:
        raise DataError(f"{path}: {counted(n, 'row')} of width {width}: nothing to store")
    with atomic_file(path) as file:
        sink = _Sink(file)
        try:
            with h5py.File(sink, "w", userblock_size=USER_BLOCK) as store:
                _fill(store, path, about, blocks, n, width, dtype, compression, sink)
        except Exception:
            sink.raise_if_failed()  # which is then the cause
            raise
        sink.raise_if_failed()
        seal(file)
    return path


def _fill(
    store: h5py.File, path: Path, about: About, blocks: Iterable[Rows], n: int, width: int,
    dtype: str, compression: str | None, sink: _Sink,
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
    for block in _regrouped((block.checked(path, width, dtype) for block in blocks), step):
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
    for key, value in about.attributes().items():
        store.attrs[key] = value


def check_distinct(ids: Sequence[str], where: Path | str) -> None:
    """Refuses an id that comes twice.

    Raises:
        DataError: naming the first.
    """
    first: dict[str, int] = {}
    for row, name in enumerate(ids):
        if first.setdefault(name, row) != row:
            raise DataError(
                f"{where}: the id {name!r} comes twice, in rows {first[name]} and {row}"
            )


def _regrouped(blocks: Iterable[Rows], size: int) -> Iterator[Rows]:
    """The same rows, `size` at a time: whole chunks, each of which is then written once."""
    held: list[Rows] = []
    count = 0
    for block in blocks:
        held.append(block)
        count += len(block.ids)
        while count >= size:
            whole = _joined(held)
            yield _part(whole, 0, size)
            rest = _part(whole, size, count)
            held, count = [rest], count - size
    if count:
        yield _joined(held)


def _joined(blocks: Sequence[Rows]) -> Rows:
    if len(blocks) == 1:
        return blocks[0]
    generated = None
    if any(block.generated is not None for block in blocks):
        generated = np.concatenate(
            [np.zeros(len(b.ids), dtype=bool) if b.generated is None else b.generated
             for b in blocks]
        )  # fmt: skip
    return Rows(
        [name for block in blocks for name in block.ids],
        np.concatenate([block.vectors for block in blocks]),
        np.concatenate([block.observed for block in blocks]),
        generated,
    )


def _part(rows: Rows, start: int, stop: int) -> Rows:
    return Rows(
        rows.ids[start:stop],
        rows.vectors[start:stop],
        rows.observed[start:stop],
        None if rows.generated is None else rows.generated[start:stop],
    )


class _Sink(io.RawIOBase):
    """A file for the HDF5 library, which does not outlive a full disk in good order.

    The first error is kept. From then on nothing reaches the file, and all is said to go well.
    """

    def __init__(self, file: IO[bytes]) -> None:
        self._inner = file
        self._error: OSError | None = None

    def raise_if_failed(self) -> None:
        """Raises the error of the storage, if there was one."""
        if self._error:
            raise self._error

    def write(self, data: Any) -> int:
        size = memoryview(data).nbytes
        return self._try(lambda: self._inner.write(data), size)

    def truncate(self, size: int | None = None) -> int:
        return self._try(lambda: self._inner.truncate(size), size or 0)

    def flush(self) -> None:
        self._try(lambda: self._inner.flush() or 0, 0)

    def seek(self, offset: int, whence: int = 0) -> int:
        return self._try(lambda: self._inner.seek(offset, whence), offset)

    def tell(self) -> int:
        return self._try(self._inner.tell, 0)

    def readinto(self, buffer: Any) -> int:
        size = memoryview(buffer).nbytes
        return self._try(lambda: int(self._inner.readinto(buffer)), size)  # type: ignore[attr-defined]

    def _try(self, action: Callable[[], int], otherwise: int) -> int:
        if self._error is None:
            try:
                return action()
            except OSError as error:
                self._error = error
        return otherwise
