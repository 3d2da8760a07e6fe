"""Vectors in files of others: arrays by row number, or a vector for each key."""

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

_UNSAFE = "; loading it may run code: --unsafe-pickle does it, if you trust whoever made it"


@dataclass(frozen=True, eq=False)
class Source:
    """`n` vectors of one width. `keys` name them, where the file does."""

    path: Path
    n: int
    width: int
    dtype: str  # "float16" where the file holds that, else "float32"
    keys: Sequence[str] | None
    read: Callable[[NDArray[np.int64]], Floats]  # rows -> vectors
    observed: Mask | None = None  # which rows were, where the file says so


def open_vectors(path: Path, key: str | None = None, unsafe_pickle: bool = False) -> Source:
    """Opens a file of vectors by its suffix; those that can stay on the disk do.

    Args:
        path: .npy, .npz, .h5, .hdf5, .safetensors, .pth, .pt, .bin, .tsv, .pkl or .pickle.
        key: which array of a file that holds several.
        unsafe_pickle: read pickles, which may run code.

    Raises:
        UsageError: for another suffix.
        DataError: when the file cannot be read, or holds no vectors of one width.
    """
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        known = ", ".join(sorted(_READERS))
        suffix = repr(path.suffix) if path.suffix else "a name without suffix"
        raise UsageError(f"{path}: no reader for {suffix}; known: {known}")
    open_source(path)
    try:
        return reader(path, key, unsafe_pickle)
    except (UsageError, DataError):
        raise
    except MemoryError:
        raise DataError(f"{path}: does not fit into memory") from None
    except Exception as error:  # whatever a library says of a file that is not what it seems
        lines = str(error).splitlines()
        reason = lines[0] if lines else type(error).__name__
        raise DataError(f"{path}: cannot be read as {path.suffix}: {reason}") from error


def _array(path: Path, array: Any, anew: Callable[[], Any] | None = None) -> Source:
    """An array or tensor ``[n, d]``, or with axes of length 1 in between.

    What is mapped from a file counts as memory once it has been read; `anew` maps it for each read.
    """
    load = anew or (lambda: array)
    if getattr(array.dtype, "kind", "f") not in "fiu":  # types of torch have no kind
        raise DataError(f"{path}: holds {array.dtype}, expected numbers")
    shape, dtype = tuple(int(size) for size in array.shape), _dtype(array)
    full = tuple(size for i, size in enumerate(shape) if i == 0 or size != 1)
    if len(full) == 1 and len(shape) > 1:
        full = (*full, 1)
    if len(full) != 2:
        raise DataError(f"{path}: an array of shape {shape}, expected a vector a row: [n, d]")

    def read(rows: NDArray[np.int64]) -> Floats:
        return _floats(path, load()[rows]).reshape(len(rows), full[1])

    return Source(path, *full, dtype, None, read)


def _keyed(path: Path, keys: Sequence[str], vector: Callable[[str], Any]) -> Source:
    """A vector for each key; axes of length 1 do not matter."""
    if not keys:
        raise DataError(f"{path}: holds nothing")
    first = vector(keys[0])
    width = int(np.prod(first.shape))

    def read(rows: NDArray[np.int64]) -> Floats:
        found = np.empty((len(rows), width), dtype=np.float32)
        for i, row in enumerate(rows.tolist()):
            value = vector(keys[row])
            if max(value.shape, default=1) != width or np.prod(value.shape) != width:
                raise DataError(
                    f"{path}: {keys[row]!r} holds an array of shape {tuple(value.shape)}, expected "
                    f"one vector of width {width}"
                )
            found[i] = _floats(path, value).reshape(width)
        return found

    return Source(path, len(keys), width, _dtype(first), keys, read)


def _dtype(array: Any) -> str:
    return "float16" if str(array.dtype) in ("float16", "torch.float16") else "float32"


def _floats(path: Path, values: Any) -> Floats:
    """As numpy; bfloat16, which numpy lacks, as float32."""
    if not isinstance(values, np.ndarray):
        values = values.float().numpy()
    if values.dtype.kind not in "fiu":
        raise DataError(f"{path}: holds {values.dtype}, expected numbers")
    return np.asarray(values if values.dtype.kind == "f" else values.astype(np.float32))


def _chosen(path: Path, arrays: Mapping[str, Any], key: str | None) -> Source:
    """One array of several: by name, the only one of two axes, or all of them as vectors."""
    if key is not None:
        if key not in arrays:
            raise UsageError(f"{path}: holds no {key!r}; {nearest(key, arrays)}")
        return _array(path, arrays[key])
    wide = [name for name, array in arrays.items() if len(array.shape) > 1 and array.shape[0] > 1]
    if len(wide) == 1:
        return _array(path, arrays[wide[0]])
    if len(wide) > 1:
        raise UsageError(
            f"{path}: holds {len(wide):,} arrays of several rows; say which with --key: "
            f"{', '.join(sorted(wide)[:5])}{', …' if len(wide) > 5 else ''}"
        )
    return _keyed(path, list(arrays), arrays.__getitem__)


def _npy(path: Path, key: str | None, unsafe: bool) -> Source:
    def mapped() -> Any:
        return np.load(path, mmap_mode="r", allow_pickle=False)

    try:
        return _array(path, mapped(), mapped)
    except ValueError as error:
        if "pickle" not in str(error).lower() and "object" not in str(error).lower():
            raise
        if not unsafe:
            raise DataError(f"{path}: holds pickled objects{_UNSAFE}") from None
        return _objects(path, np.load(path, allow_pickle=True), key)


def _npz(path: Path, key: str | None, unsafe: bool) -> Source:
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an .npz archive, or cut off")
    with np.load(path, allow_pickle=unsafe) as archive:
        try:
            arrays = {name: archive[name] for name in archive.files}
        except ValueError as error:
            raise DataError(f"{path}: {error}{'' if unsafe else _UNSAFE}") from None
    return _chosen(path, arrays, key)


def _safetensors(path: Path, key: str | None, unsafe: bool) -> Source:
    import json

    import safetensors

    # Tensors of this library stay on the disk until their rows are read.
    def mapped() -> dict[str, Any]:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    tensors = mapped()
    if key is not None or "ids" not in metadata:
        return _chosen(path, tensors, key)
    # As `exporting` writes it.
    source = _array(path, tensors["vectors"], lambda: mapped()["vectors"])
    ids, observed = json.loads(metadata["ids"]), tensors["observed"].numpy()
    if not isinstance(ids, list) or not len(ids) == len(observed) == source.n:
        raise DataError(f"{path}: its ids do not fit its {counted(source.n, 'row')}")
    return replace(source, keys=list(map(str, ids)), observed=observed)


def _torch(path: Path, key: str | None, unsafe: bool) -> Source:
    import torch

    try:
        try:
            found = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError):  # the format before torch 1.6 cannot stay on the disk
            found = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not unsafe:
            raise DataError(f"{path}: holds more than tensors{_UNSAFE}") from None
        found = torch.load(path, map_location="cpu", weights_only=False)
    return _objects(path, found, key)


def _pickle(path: Path, key: str | None, unsafe: bool) -> Source:
    if not unsafe:
        raise DataError(f"{path}: is a pickle{_UNSAFE}")
    with path.open("rb") as file:
        return _objects(path, pickle.load(file), key)


def _objects(path: Path, found: Any, key: str | None) -> Source:
    """What was unpickled: an array or tensor, a list of vectors, or a mapping."""
    if isinstance(found, np.ndarray) and found.dtype == object:
        found = found.item() if found.ndim == 0 else list(found)
    if isinstance(found, Mapping):
        arrays = {str(name): _numeric(path, value) for name, value in found.items()}
        return _chosen(path, arrays, key)
    if isinstance(found, (list, tuple)):
        vectors = [_numeric(path, value) for value in found]
        lengths = {vector.shape for vector in vectors}
        if len(lengths) != 1:
            raise DataError(f"{path}: a list of vectors of {len(lengths)} shapes, expected one")
        return _array(path, np.stack(vectors))
    return _array(path, _numeric(path, found, keep_tensor=True))


def _numeric(path: Path, value: Any, keep_tensor: bool = False) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        return value if keep_tensor or value.dim() > 1 else value.float().numpy()
    array = np.asarray(value)
    if array.dtype == object:
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: holds {type(value).__name__} where numbers were expected")
    return array


def _hdf5(path: Path, key: str | None, unsafe: bool) -> Source:
    import h5py

    file = h5py.File(path, "r")
    names = [name for name, item in file.items() if isinstance(item, h5py.Dataset)]
    if key is not None or any(file[name].ndim == 2 and file[name].shape[0] > 1 for name in names):
        numeric = {name: file[name] for name in names if file[name].dtype.kind in "fiu"}
        source = _chosen(path, numeric, key)
        array = (
            numeric[key]
            if key
            else next(item for item in numeric.values() if item.ndim == 2 and item.shape[0] > 1)
        )
        keys = None
        if "ids" in names and file["ids"].shape == (source.n,):
            keys = [_decoded(path, name) for name in file["ids"][:].tolist()]

        def read(rows: NDArray[np.int64]) -> Floats:
            # HDF5 wants ascending distinct rows, and takes a while for each; a range is quicker.
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
        raise DataError(f"{path}: the id {name[:80]!r} is not UTF-8") from None


def _tsv(path: Path, key: str | None, unsafe: bool) -> Source:
    """Lines of an id and numbers, separated by tabs."""
    ids: list[str] = []
    rows: list[Floats] = []
    for number, text in read_lines(path):
        name, *fields = text.split("\t")
        try:
            row = np.array(fields, dtype=np.float32)
        except ValueError:
            wrong = next((f for f in fields if not _is_number(f)), "")
            raise DataError(
                f"{path}:{number}: {wrong[:40]!r} is not a number; expected an id and numbers, "
                "separated by tabs"
            ) from None
        if rows and len(row) != len(rows[0]):
            raise DataError(
                f"{path}:{number}: {counted(len(row), 'number')}, expected {len(rows[0])} as before"
            )
        ids.append(name)
        rows.append(row)
    if not rows or not len(rows[0]):
        raise DataError(f"{path}: expected lines of an id and numbers, separated by tabs")
    array = np.stack(rows)
    return Source(path, len(ids), array.shape[1], "float32", ids, lambda chosen: array[chosen])


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
