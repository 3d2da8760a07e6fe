"""Readers of files of vectors: arrays with rows, or one vector per key."""

from __future__ import annotations

import pickle
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.features.format import Floats, Mask
from mmkgc_cli.kg.readers.lines import open_source, read_lines
from mmkgc_cli.text import counted

_NUMBERS = "store the vectors as arrays of numbers, one vector per row"
_UNSAFE = "add --unsafe-pickle if you trust its source, since loading it may run code"


@dataclass(frozen=True, eq=False)
class Source:
    """`n` vectors of one width, with `keys` if the file names them."""

    path: Path
    n: int
    width: int
    dtype: str  # "float16" if the file has it, else "float32"
    keys: Sequence[str] | None
    read: Callable[[NDArray[np.int64]], Floats]  # rows -> vectors
    observed: Mask | None = None  # mask of the rows, if the file has one


def open_vectors(path: Path, key: str | None = None, unsafe_pickle: bool = False) -> Source:
    """Opens a file of vectors by its suffix; vectors stay on disk where the format allows it.

    Args:
        path: .npy, .npz, .h5, .hdf5, .safetensors, .pth, .pt, .bin, .tsv, .pkl or .pickle.
        key: name of the array in a file with several.
        unsafe_pickle: read pickles, which may run code.

    Raises:
        UsageError: unknown suffix, or `key` is missing or unknown.
        DataError: the file cannot be read, or has no vectors of one width.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        suffixes = ", ".join(sorted(_READERS))
        suffix = repr(path.suffix) if path.suffix else "a name without suffix"
        raise UsageError(
            f"{path}: no reader for {suffix}; known: {suffixes}",
            fix="convert the file to one of these formats",
        )
    open_source(path)
    try:
        return reader(path, key, unsafe_pickle)
    except (UsageError, DataError):
        raise
    except MemoryError:
        raise DataError(
            f"{path}: does not fit into memory",
            fix="convert the file to .npy, .h5 or .safetensors, which stay on disk",
        ) from None
    except Exception as error:  # libraries raise many types on files of another format
        lines = str(error).splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise DataError(
            f"{path}: cannot be read as {path.suffix}: {reason}",
            fix="check that the file is complete and that its suffix matches its format",
        ) from error


def _array(path: Path, array: Any, reopen: Callable[[], Any] | None = None) -> Source:
    """An array or tensor ``[n, d]``, optionally with more axes of length 1.

    Pages of a memory-mapped array stay in memory after a read; `reopen` maps it for each read.
    """
    load = reopen or (lambda: array)
    if getattr(array.dtype, "kind", "f") not in "fiu":  # types of torch have no kind
        raise DataError(f"{path}: contains {array.dtype}, expected numbers", fix=_NUMBERS)
    shape, dtype = tuple(int(size) for size in array.shape), _dtype(array)
    matrix_shape = tuple(size for i, size in enumerate(shape) if i == 0 or size != 1)
    if len(matrix_shape) == 1 and len(shape) > 1:
        matrix_shape = (*matrix_shape, 1)
    if len(matrix_shape) != 2:
        raise DataError(
            f"{path}: an array of shape {shape}, expected [n, d] with one vector per row",
            fix="reshape the array",
        )

    def read(rows: NDArray[np.int64]) -> Floats:
        return _floats(path, load()[rows]).reshape(len(rows), matrix_shape[1])

    return Source(path, *matrix_shape, dtype, None, read)


def _keyed(path: Path, keys: Sequence[str], vector: Callable[[str], Any]) -> Source:
    """One vector per key; axes of length 1 are ignored."""
    if not keys:
        raise DataError(f"{path}: contains no array", fix=_NUMBERS)
    first_vector = vector(keys[0])
    width = int(np.prod(first_vector.shape))

    def read(rows: NDArray[np.int64]) -> Floats:
        loaded = np.empty((len(rows), width), dtype=np.float32)
        for i, row in enumerate(rows.tolist()):
            value = vector(keys[row])
            if max(value.shape, default=1) != width or np.prod(value.shape) != width:
                raise DataError(
                    f"{path}: {keys[row]!r} has shape {tuple(value.shape)}, expected one vector of "
                    f"width {width}",
                    fix="store one vector of the same width per key",
                )
            loaded[i] = _floats(path, value).reshape(width)
        return loaded

    return Source(path, len(keys), width, _dtype(first_vector), keys, read)


def _dtype(array: Any) -> str:
    return "float16" if str(array.dtype) in ("float16", "torch.float16") else "float32"


def _floats(path: Path, values: Any) -> Floats:
    """Converts to numpy; bfloat16 becomes float32."""
    if not isinstance(values, np.ndarray):
        values = values.float().numpy()
    if values.dtype.kind not in "fiu":
        raise DataError(f"{path}: contains {values.dtype}, expected numbers", fix=_NUMBERS)
    return np.asarray(values if values.dtype.kind == "f" else values.astype(np.float32))


def _select_array(path: Path, arrays: Mapping[str, Any], key: str | None) -> Source:
    """Selects an array by name, or the only one with several rows; else all arrays are vectors."""
    if key is not None:
        if key not in arrays:
            raise UsageError(f"{path}: has no array {key!r}", fix=nearest(key, arrays))
        return _array(path, arrays[key])
    tables = [name for name, array in arrays.items() if len(array.shape) > 1 and array.shape[0] > 1]
    if len(tables) == 1:
        return _array(path, arrays[tables[0]])
    if len(tables) > 1:
        raise UsageError(
            f"{path}: has {len(tables):,} arrays of several rows: "
            f"{', '.join(sorted(tables)[:5])}{', …' if len(tables) > 5 else ''}",
            fix="select one with --key NAME",
        )
    return _keyed(path, list(arrays), arrays.__getitem__)


def _npy(path: Path, key: str | None, unsafe_pickle: bool) -> Source:
    def open_mapped() -> Any:
        return np.load(path, mmap_mode="r", allow_pickle=False)

    try:
        return _array(path, open_mapped(), open_mapped)
    except ValueError as error:
        if "pickle" not in str(error).lower() and "object" not in str(error).lower():
            raise
        if not unsafe_pickle:
            raise DataError(f"{path}: contains pickled objects", fix=_UNSAFE) from None
        return _objects(path, np.load(path, allow_pickle=True), key)


def _npz(path: Path, key: str | None, unsafe_pickle: bool) -> Source:
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an .npz archive, or truncated", fix="write the file again")
    with np.load(path, allow_pickle=unsafe_pickle) as archive:
        try:
            arrays = {name: archive[name] for name in archive.files}
        except ValueError as error:
            fix = "write the file again" if unsafe_pickle else _UNSAFE
            raise DataError(f"{path}: {error}", fix=fix) from None
    return _select_array(path, arrays, key)


def _safetensors(path: Path, key: str | None, unsafe_pickle: bool) -> Source:
    import json

    import safetensors

    # Tensors stay on disk until their rows are read.
    def open_mapped() -> dict[str, Any]:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    tensors = open_mapped()
    if key is not None or "ids" not in metadata:
        return _select_array(path, tensors, key)
    # A file from `exporting`.
    source = _array(path, tensors["vectors"], lambda: open_mapped()["vectors"])
    ids, observed = json.loads(metadata["ids"]), tensors["observed"].numpy()
    if not isinstance(ids, list) or not len(ids) == len(observed) == source.n:
        raise DataError(
            f"{path}: the number of ids differs from the {counted(source.n, 'row')}",
            fix="export the store again with `mmkgc features export`",
        )
    return replace(source, keys=list(map(str, ids)), observed=observed)


def _torch(path: Path, key: str | None, unsafe_pickle: bool) -> Source:
    import torch

    try:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError):  # the format before torch 1.6 cannot be mapped
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not unsafe_pickle:
            raise DataError(f"{path}: contains objects other than tensors", fix=_UNSAFE) from None
        loaded = torch.load(path, map_location="cpu", weights_only=False)
    return _objects(path, loaded, key)


def _pickle(path: Path, key: str | None, unsafe_pickle: bool) -> Source:
    if not unsafe_pickle:
        raise DataError(f"{path}: is a pickle", fix=_UNSAFE)
    with path.open("rb") as file:
        return _objects(path, pickle.load(file), key)


def _objects(path: Path, loaded: Any, key: str | None) -> Source:
    """Converts an unpickled object: an array or tensor, a list of vectors, or a mapping."""
    if isinstance(loaded, np.ndarray) and loaded.dtype == object:
        loaded = loaded.item() if loaded.ndim == 0 else list(loaded)
    if isinstance(loaded, Mapping):
        arrays = {str(name): _numeric(path, value) for name, value in loaded.items()}
        return _select_array(path, arrays, key)
    if isinstance(loaded, (list, tuple)):
        vectors = [_numeric(path, value) for value in loaded]
        lengths = {vector.shape for vector in vectors}
        if len(lengths) != 1:
            raise DataError(
                f"{path}: a list of vectors of {len(lengths)} shapes, expected one",
                fix="store vectors of one width",
            )
        return _array(path, np.stack(vectors))
    return _array(path, _numeric(path, loaded, keep_tensor=True))


def _numeric(path: Path, value: Any, keep_tensor: bool = False) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        return value if keep_tensor or value.dim() > 1 else value.float().numpy()
    array = np.asarray(value)
    if array.dtype == object:
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: contains {type(value).__name__}, expected numbers", fix=_NUMBERS)
    return array


def _hdf5(path: Path, key: str | None, unsafe_pickle: bool) -> Source:
    import h5py

    file = h5py.File(path, "r")
    names = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
    if key is not None or any(file[name].ndim == 2 and file[name].shape[0] > 1 for name in names):
        numeric = {name: file[name] for name in names if file[name].dtype.kind in "fiu"}
        source = _select_array(path, numeric, key)
        array = (
            numeric[key]
            if key
            else next(item for item in numeric.values() if item.ndim == 2 and item.shape[0] > 1)
        )
        keys = None
        if "ids" in names and file["ids"].shape == (source.n,):
            keys = [_decoded(path, name) for name in file["ids"][:].tolist()]

        def read(rows: NDArray[np.int64]) -> Floats:
            # HDF5 needs ascending distinct rows and is slow for each; reading a range is faster.
            low, high = int(rows.min()), int(rows.max()) + 1
            if high - low <= 4 * len(rows) + 1024:
                return _floats(path, array[low:high][rows - low])
            unique, inverse = np.unique(rows, return_inverse=True)
            return _floats(path, array[unique][inverse])

        return Source(path, source.n, source.width, source.dtype, keys, read)
    return _keyed(path, names, lambda name: file[name][()])


def _decoded(path: Path, name: bytes | str) -> str:
    if isinstance(name, str):
        return name
    try:
        return name.decode()
    except UnicodeDecodeError:
        raise DataError(
            f"{path}: the id {name[:80]!r} is not UTF-8", fix="write the ids in UTF-8"
        ) from None


def _tsv(path: Path, key: str | None, unsafe_pickle: bool) -> Source:
    """Reads lines of an id and numbers, separated by tabs."""
    ids: list[str] = []
    rows: list[Floats] = []
    for number, text in read_lines(path):
        name, *fields = text.split("\t")
        try:
            row = np.array(fields, dtype=np.float32)
        except ValueError:
            bad_field = next((f for f in fields if not _is_number(f)), "")
            raise DataError(
                f"{path}:{number}: {bad_field[:40]!r} is not a number",
                fix="write lines of an id and numbers, separated by tabs",
            ) from None
        if rows and len(row) != len(rows[0]):
            raise DataError(
                f"{path}:{number}: {counted(len(row), 'number')}, expected {len(rows[0])} as in "
                "the line before",
                fix="write the same number of values in each line",
            )
        ids.append(name)
        rows.append(row)
    if not rows or not len(rows[0]):
        raise DataError(
            f"{path}: contains no numbers",
            fix="write lines of an id and numbers, separated by tabs",
        )
    array = np.stack(rows)
    return Source(path, len(ids), array.shape[1], "float32", ids, lambda indices: array[indices])


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


_READERS: dict[str, Callable[[Path, str | None, bool], Source]] = {
    ".npy": _npy,
    ".npz": _npz,
    ".h5": _hdf5,
    ".hdf5": _hdf5,
    ".safetensors": _safetensors,
    ".pth": _torch,
    ".pt": _torch,
    ".bin": _torch,
    ".tsv": _tsv,
    ".pkl": _pickle,
    ".pickle": _pickle,
}
