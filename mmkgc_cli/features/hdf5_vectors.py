"""Vectors of a foreign HDF5 file, parsed in a child process.

The child opens the file through a descriptor of the parent, checks its structure before it reads a
value, and returns rows as raw bytes. What it returns is checked, since a file may take over the
process that parses it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.format import DTYPES, Floats
from mmkgc_cli.features.sizes import check_bytes
from mmkgc_cli.features.vectors import Opening, Source, keyed_source, select_array
from mmkgc_cli.state.hdf5 import declared_bytes, plain_datasets
from mmkgc_cli.state.parsing import parse_json
from mmkgc_cli.state.regular import open_regular
from mmkgc_cli.state.sandbox import Limits, Peer, Session

_TASK = "mmkgc_cli.features.hdf5_vectors:serve_vectors"
_READ_BYTES = 1 << 24  # beyond the requested rows, read to get a range
_SHIFT = 27  # 128 MiB of values per second, the slowest decompression


def open_hdf5(path: Path, opening: Opening) -> Source:
    """Opens a foreign HDF5 file in a child, which `Source.close` ends.

    Raises:
        UsageError: the array of `opening.key` is missing, or a key is necessary.
        DataError: the file cannot be read, refers to other files, or declares too much.
    """
    file = open_regular(path)
    most = opening.max_bytes
    # Some malformed files make HDF5 loop, so a small file gets a few seconds only.
    size = path.stat().st_size
    limits = Limits(
        cpu_seconds=5 + (size >> 20) + ((most or 0) >> _SHIFT), answer_seconds=120.0 + (size >> 20)
    )
    arguments = {"path": str(path), "key": opening.key, "most": most}
    try:
        session = Session(_TASK, path, file, arguments, limits)
    finally:
        file.close()  # the child has its own
    try:
        return _source(path, session)
    except BaseException:
        session.close()
        raise


def _source(path: Path, session: Session) -> Source:
    header, payload = session.answer()
    n, width, dtype = (header.get(name) for name in ("n", "width", "dtype"))
    keys = parse_json(bytes(payload), str(path)) if header.get("has_keys") else None
    are_strings = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if (
        not (isinstance(n, int) and isinstance(width, int) and n >= 0 and width >= 0)
        or dtype not in DTYPES
        or not (keys is None or (are_strings and len(keys) == n))
    ):
        raise _invalid(path)

    def read(rows: NDArray[np.int64]) -> Floats:
        answer = session.ask({}, np.ascontiguousarray(rows, dtype="<i8").data)
        if len(answer.payload) != len(rows) * width * np.dtype(dtype).itemsize:
            raise _invalid(path)
        return np.frombuffer(answer.payload, dtype).reshape(len(rows), width)

    return Source(path, n, width, dtype, keys, read, close=session.close)


def _invalid(path: Path) -> DataError:
    return DataError(
        f"{path}: the process that reads it returned invalid values",
        fix="check where the file comes from and write it again",
    )


# In the child


def serve_vectors(peer: Peer, file: FileIO, arguments: Mapping[str, Any]) -> None:
    """Sends number, width, type and keys of the vectors, then the rows that the parent asks for."""
    path = Path(arguments["path"])
    with h5py.File(file, "r") as store:
        source = _open(path, store, arguments["key"], arguments["most"])
        names = source.keys
        text = b"" if names is None else json.dumps(list(names), ensure_ascii=False).encode()
        peer.send(
            {
                "n": source.n, "width": source.width, "dtype": source.dtype,
                "has_keys": names is not None,
            },
            text,
        )  # fmt: skip
        while question := peer.receive():
            rows = np.frombuffer(question.payload, "<i8")
            with np.errstate(over="ignore"):
                values = source.read(rows).astype(source.dtype, copy=False)
            peer.send({}, np.ascontiguousarray(values).data)


def _open(path: Path, file: h5py.File, key: str | None, most: int | None) -> Source:
    # The checks are complete before a value is read.
    arrays = {
        name: _Array(file, name, dataset)
        for name, dataset in plain_datasets(path, file)
        if dataset.shape is not None
    }
    is_table = any(len(item.shape) == 2 and item.shape[0] > 1 for item in arrays.values())
    if key is None and not is_table:
        return keyed_source(path, list(arrays), arrays.__getitem__)
    numeric = {name: item for name, item in arrays.items() if item.dtype.kind in "fiu"}
    source = select_array(path, numeric, key)
    keys = None
    if "ids" in arrays and arrays["ids"].shape == (source.n,):
        check_bytes(path, f"{source.n:,} ids", arrays["ids"].nbytes, most)
        keys = [_decoded(path, name) for name in file["ids"][:].tolist()]
    return Source(path, source.n, source.width, source.dtype, keys, source.read)


class _Array:
    """A dataset that is indexed by rows in any order; it is open only while it is read."""

    def __init__(self, file: h5py.File, name: str, dataset: h5py.Dataset) -> None:
        self._file, self._name = file, name
        self.dtype = dataset.dtype
        self.shape: tuple[int, ...] = dataset.shape
        self.nbytes = declared_bytes(dataset)

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        dataset = self._file[self._name]
        if not isinstance(rows, np.ndarray):
            return np.asarray(dataset[rows])
        # HDF5 needs ascending distinct rows and is slow for each; reading a range is faster.
        low, high = int(rows.min()), int(rows.max()) + 1
        row_bytes = self.nbytes // max(1, self.shape[0])
        if (high - low - 4 * len(rows)) * row_bytes <= _READ_BYTES:
            return np.asarray(dataset[low:high][rows - low])
        unique, inverse = np.unique(rows, return_inverse=True)
        return np.asarray(dataset[unique][inverse])


def _decoded(path: Path, name: Any) -> str:
    if isinstance(name, str):
        return name
    if not isinstance(name, bytes):
        raise DataError(
            f"{path}: the id {str(name)[:80]!r} is no text", fix="write the ids as UTF-8 strings"
        )
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise DataError(
            f"{path}: the id {name[:80]!r} is not UTF-8", fix="write the ids in UTF-8"
        ) from None
