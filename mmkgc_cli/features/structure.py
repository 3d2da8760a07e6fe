"""The structure of a feature store: read in the process, inspected in a child before.

Anybody can compute the checksums of a store, so they show damage but not origin. A store of unknown
origin is therefore inspected in a child before this process gives it to the HDF5 library: every
link, the storage of every array, the place of every chunk, ids and masks, and all compressed
chunks. `inspected` records the result.
"""

from __future__ import annotations

import dataclasses
import itertools
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from io import FileIO
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.checksums import CheckedFile, Checksums
from mmkgc_cli.features.format import DTYPES, FORMAT_VERSION, SLAB_BYTES, Mask, hdf5_errors
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.writing import check_name
from mmkgc_cli.kg import identity, inspected
from mmkgc_cli.state.hdf5 import integer_attribute, plain_datasets, text_attribute
from mmkgc_cli.state.sandbox import Limits, Peer, Session

FIX = "make the store again with `mmkgc extract` or `mmkgc features import`"
KIND = "store"
_TASK = "mmkgc_cli.features.structure:inspect"
_LARGEST_CHUNK = 1 << 26
_MOST_COMPRESSED = 1100  # gzip compresses zeros 1032-fold
_COMPRESSIONS = {
    (): None,
    (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_DEFLATE): "gzip",
    (h5py.h5z.FILTER_DEFLATE,): "gzip",
    (h5py.h5z.FILTER_SHUFFLE, h5py.h5z.FILTER_LZF): "lzf",
}


@dataclass(frozen=True)
class Header:
    """Metadata and the form of the vectors."""

    metadata: Metadata
    entities_id: str
    n: int
    width: int
    dtype: np.dtype[Any]
    chunk_rows: int
    compression: str | None


def read_header(path: Path, file: h5py.File) -> Header:
    """Reads attributes and the form of the vectors.

    Raises:
        DataError: the format version is another one.
        KeyError, ValueError, TypeError: something is missing or of another form.
    """
    version = integer_attribute(file.attrs, "format_version")
    if version != FORMAT_VERSION:
        raise DataError(f"{path}: format version {version}, expected {FORMAT_VERSION}", fix=FIX)
    texts = {name: text_attribute(file.attrs, name) for name in Metadata.names()}
    try:
        metadata = Metadata.from_attributes(texts, path, fix=FIX)
    except UsageError as error:
        raise ValueError(str(error)) from None
    vectors = file["vectors"]
    if not isinstance(vectors, h5py.Dataset):
        raise ValueError("vectors are a group")
    if vectors.ndim != 2 or vectors.dtype.name not in DTYPES or vectors.chunks is None:
        raise ValueError(f"vectors are {vectors.dtype} {vectors.shape}")
    n, width = map(int, vectors.shape)
    return Header(
        metadata=metadata,
        entities_id=text_attribute(file.attrs, "entities_id"),
        n=n,
        width=width,
        dtype=np.dtype(vectors.dtype),
        chunk_rows=int(vectors.chunks[0]),
        compression=vectors.compression,
    )


def read_ids(path: Path, file: h5py.File, n: int) -> list[str]:
    """The ids of all rows.

    Raises:
        DataError: they are not `n` distinct strings in UTF-8.
    """
    with hdf5_errors(path):
        ids = [name.decode() for name in file["ids"][:].tolist()]
    if len(ids) != n or len(set(ids)) != n:
        raise DataError(f"{path}: {len(set(ids))} distinct ids for {n} rows", fix=FIX)
    return ids


def read_mask(path: Path, file: h5py.File, name: str, n: int) -> Mask:
    """A mask of the rows, bool ``[n]``.

    Raises:
        DataError: it has another form.
    """
    with hdf5_errors(path):
        mask: Mask = file[name][:]
    if mask.dtype != np.bool_ or mask.shape != (n,):
        raise DataError(f"{path}: {name} is {mask.dtype} {mask.shape}, expected bool [n]", fix=FIX)
    return mask


def require_inspected(path: Path, file: FileIO, checksums: Checksums) -> None:
    """Inspects a store in a child, unless it was inspected before or written on this machine.

    Raises:
        DataError: it is not a store in every detail, or reading it crashed the child.
    """
    key = inspected.file_key(KIND, file.fileno(), checksums.sha256)
    if inspected.is_inspected(key):
        return
    arguments = {"path": str(path), "checksums": dataclasses.asdict(checksums)}
    limits = Limits(
        memory=(2 << 30) + 8 * checksums.size,
        cpu_seconds=5 + (checksums.size >> 20),
        answer_seconds=120.0 + (checksums.size >> 20),
    )
    with Session(_TASK, path, file, arguments, limits, fix=FIX) as session:
        session.answer()
    inspected.record(key)


# In the child


def inspect(peer: Peer, file: FileIO, arguments: Mapping[str, Any]) -> None:
    """Inspects a store; see the module."""
    path, checksums = Path(arguments["path"]), Checksums(**arguments["checksums"])
    with hdf5_errors(path), h5py.File(CheckedFile(path, checksums, file), "r") as store:
        datasets = dict(plain_datasets(path, store, FIX))
        for name in store:
            if name not in ("ids", "vectors", "observed", "generated") or name not in datasets:
                raise ValueError(f"contains {name[:80]!r}, which no store has")
        header = read_header(path, store)
        if not header.n or not header.width:
            raise ValueError(f"vectors of shape {(header.n, header.width)}")
        for name, dataset in sorted(datasets.items(), reverse=True):  # vectors first
            _check_array(name, dataset, header, checksums.size)
        ids = read_ids(path, store, header.n)
        for name in ids:
            check_name(name, path)
        if identity.entities_id(identity.SortedNames.from_names(ids)) != header.entities_id:
            raise DataError(f"{path}: the ids do not match entities_id", fix=FIX)
        for name in datasets.keys() & {"observed", "generated"}:
            read_mask(path, store, name, header.n)
        if "observed" not in datasets:
            raise ValueError("contains no mask of observed rows")
        if header.compression is not None:
            _decompress(datasets["vectors"], header)
    peer.send({})


def _check_array(name: str, dataset: h5py.Dataset, header: Header, size: int) -> None:
    """Checks type, shape, filters and chunks of an array."""
    kinds = {"vectors": "f", "ids": "S"}
    if dataset.dtype.kind != kinds.get(name, "b") or dataset.dtype.byteorder == ">":
        raise ValueError(f"{name} has the type {dataset.dtype}")
    shape = (header.n, header.width) if name == "vectors" else (header.n,)
    chunks = dataset.chunks
    if dataset.shape != shape or chunks is None or chunks[1:] != shape[1:]:
        raise ValueError(f"{name} has shape {dataset.shape} in chunks of {chunks}")
    properties = dataset.id.get_create_plist()
    filters = tuple(properties.get_filter(i)[0] for i in range(properties.get_nfilters()))
    if filters not in _COMPRESSIONS:
        raise ValueError(f"{name} has the filters {filters}")
    row_bytes = int(np.prod(shape[1:], dtype=np.float64)) * dataset.dtype.itemsize
    chunk_bytes = chunks[0] * row_bytes
    if chunk_bytes > max(_LARGEST_CHUNK, row_bytes) or row_bytes > _MOST_COMPRESSED * size:
        raise ValueError(f"{name} has chunks of {chunk_bytes:,} bytes")
    stored: list[h5py.h5d.StoreInfo] = []
    dataset.id.chunk_iter(stored.append)
    starts = sorted(chunk.chunk_offset[0] for chunk in stored)
    if len(starts) != -(-header.n // chunks[0]) or starts != list(range(0, header.n, chunks[0])):
        raise ValueError(f"{name} has {len(stored)} chunks, not one for each {chunks[0]} rows")
    places: list[tuple[int, int]] = []
    for chunk in stored:
        most = chunk_bytes if not filters else 2 * chunk_bytes + 4096
        if (
            chunk.filter_mask
            or chunk.size > most
            or (not filters and chunk.size < chunk_bytes)
            or any(chunk.chunk_offset[1:])
            or chunk.byte_offset is None
            or not 0 <= chunk.byte_offset <= size - chunk.size
        ):
            raise ValueError(f"a chunk of {name} is outside of the file or incomplete")
        places.append((chunk.byte_offset, chunk.byte_offset + chunk.size))
    if any(end > start for (_, end), (start, _) in itertools.pairwise(sorted(places))):
        raise ValueError(f"chunks of {name} share their bytes")
    if h5py.h5z.FILTER_DEFLATE in filters:
        _check_lengths(name, dataset, chunk_bytes, starts)


def _check_lengths(name: str, dataset: h5py.Dataset, chunk_bytes: int, starts: list[int]) -> None:
    """Checks that every chunk has its full length when it is decompressed; HDF5 does not."""
    for start in starts:
        _, data = dataset.id.read_direct_chunk((start, *[0] * (dataset.ndim - 1)))
        length = len(zlib.decompressobj().decompress(data, chunk_bytes + 1))
        if length != chunk_bytes:
            raise ValueError(f"a chunk of {name} has {length:,} bytes, expected {chunk_bytes:,}")


def _decompress(vectors: h5py.Dataset, header: Header) -> None:
    """Reads all vectors, since the decompression of HDF5 may crash on other data."""
    step = header.chunk_rows * max(
        1, SLAB_BYTES // (header.chunk_rows * header.width * header.dtype.itemsize)
    )
    for start in range(0, header.n, step):
        vectors[start : start + step]
