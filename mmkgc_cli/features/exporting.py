"""Export of a feature store to .npy, .safetensors or .parquet."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import MmkgcError, UsageError
from mmkgc_cli.features.format import Floats, Mask
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.state.atomic import atomic_file, write_text


def export_features(
    store: FeatureStore, rows: NDArray[np.int64], path: Path
) -> tuple[list[Path], int]:
    """Writes rows of a store as .npy with an ``.ids.txt``, .safetensors or .parquet, by suffix.

    Rows without a vector are zero; .safetensors and .parquet also contain the masks.

    Args:
        store: the store to export.
        rows: int64 ``[k]``, row numbers, in the order of the export.
        path: the file to write; its suffix selects the format.

    Returns:
        the files, and the number of rows without a vector.

    Raises:
        UsageError: unknown suffix.
        MmkgcError: pyarrow is not installed.
        DataError: the file cannot be written, or the store is damaged.
    """
    write = _WRITERS.get(path.suffix.lower())
    if write is None:
        raise UsageError(
            f"{path}: no writer for {path.suffix!r}; known: {', '.join(_WRITERS)}",
            fix="choose a file name with one of these suffixes",
        )
    ids = [store.ids[row] for row in rows.tolist()]
    files = write(store, rows, ids, path)
    return files, int((~store.present[rows]).sum())


def _blocks(store: FeatureStore, rows: NDArray[np.int64]) -> Iterator[tuple[int, Floats]]:
    for start in range(0, len(rows), store.slab_rows):
        block = store.read(rows[start : start + store.slab_rows])
        yield start, block.astype(store.dtype.newbyteorder("<"), copy=False)


def _npy(
    store: FeatureStore, rows: NDArray[np.int64], ids: Sequence[str], path: Path
) -> list[Path]:
    header = {
        "descr": store.dtype.newbyteorder("<").str,
        "fortran_order": False,
        "shape": (len(rows), store.width),
    }
    names = path.with_suffix(".ids.txt")
    # Before the vectors: once their file exists, the export is finished.
    write_text(names, "".join(f"{name}\n" for name in ids))
    with atomic_file(path) as file:
        np.lib.format.write_array_header_1_0(file, header)
        for _, block in _blocks(store, rows):
            file.write(block.data)
    return [path, names]


def _safetensors(
    store: FeatureStore, rows: NDArray[np.int64], ids: Sequence[str], path: Path
) -> list[Path]:
    """Writes the format directly: the library needs all tensors in memory."""
    size = len(rows) * store.width * store.dtype.itemsize
    dtype = {"float32": "F32", "float16": "F16"}[store.dtype.name]
    masks: dict[str, Mask] = {"observed": store.observed[rows]}
    if store.generated is not None:
        masks["generated"] = store.generated[rows]
    shape = [len(rows), store.width]
    header: dict[str, Any] = {
        "__metadata__": {"ids": json.dumps(ids, ensure_ascii=False), **store.metadata.attributes()},
        "vectors": {"dtype": dtype, "shape": shape, "data_offsets": [0, size]},
    }
    for name, mask in masks.items():
        offsets = [size, size + len(mask)]
        header[name] = {"dtype": "BOOL", "shape": [len(mask)], "data_offsets": offsets}
        size += len(mask)
    text = json.dumps(header, ensure_ascii=False).encode()
    text += b" " * (-len(text) % 8)
    with atomic_file(path) as file:
        file.write(len(text).to_bytes(8, "little") + text)
        for _, block in _blocks(store, rows):
            file.write(block.data)
        for mask in masks.values():
            file.write(mask.tobytes())
    return [path]


def _parquet(
    store: FeatureStore, rows: NDArray[np.int64], ids: Sequence[str], path: Path
) -> list[Path]:
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError:
        raise MmkgcError(
            f"{path}: Parquet needs pyarrow", fix="run `pip install 'mmkgc[parquet]'`"
        ) from None

    value = {"float32": pa.float32(), "float16": pa.float16()}[store.dtype.name]
    fields = [("id", pa.string()), ("observed", pa.bool_()), ("generated", pa.bool_()),
              ("vector", pa.list_(value, store.width))]  # fmt: skip
    schema = pa.schema(fields, metadata=store.metadata.attributes())
    generated = np.zeros(store.n, dtype=bool) if store.generated is None else store.generated
    with atomic_file(path) as file, pq.ParquetWriter(file, schema) as writer:
        for start, block in _blocks(store, rows):
            block_rows = rows[start : start + len(block)]
            vectors = pa.FixedSizeListArray.from_arrays(pa.array(block.reshape(-1)), store.width)
            columns = [
                pa.array(ids[start : start + len(block)]),
                pa.array(store.observed[block_rows]),
                pa.array(generated[block_rows]),
                vectors,
            ]
            writer.write_table(pa.Table.from_arrays(columns, schema=schema))
    return [path]


_WRITERS: dict[
    str, Callable[[FeatureStore, NDArray[np.int64], Sequence[str], Path], list[Path]]
] = {".npy": _npy, ".safetensors": _safetensors, ".parquet": _parquet}
