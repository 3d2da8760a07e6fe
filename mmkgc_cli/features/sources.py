"""Readers of files of vectors: arrays with rows, or one vector per key."""

from __future__ import annotations

import pickle
from collections.abc import Callable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.format import Floats
from mmkgc_cli.features.hdf5_vectors import open_hdf5
from mmkgc_cli.features.npz_vectors import open_npz
from mmkgc_cli.features.sizes import check_bytes, check_declared, most_bytes
from mmkgc_cli.features.vectors import (
    NUMBERS,
    UNSAFE,
    Opening,
    Source,
    array_source,
    select_array,
)
from mmkgc_cli.kg.readers.lines import open_source, read_lines
from mmkgc_cli.state.parsing import parse_json
from mmkgc_cli.text import counted, reason_of


def open_vectors(path: Path, opening: Opening | None = None) -> Source:
    """Opens a file of vectors by its suffix; vectors stay on disk where the format allows it.

    HDF5 files are read in a process of their own, which `Source.close` ends.

    Args:
        path: .npy, .npz, .h5, .hdf5, .safetensors, .pth, .pt, .bin, .tsv, .pkl or .pickle.
        opening: options; `max_bytes` is `sizes.most_bytes` by default.

    Raises:
        UsageError: unknown suffix, or `key` is missing or unknown.
        DataError: the file cannot be read, declares too much, or has no vectors of one width.
    """
    suffix = path.suffix.lower()
    reader = _READERS.get(suffix)
    if reader is None:
        suffixes = ", ".join(sorted(_READERS))
        suffix = repr(path.suffix) if path.suffix else "a name without suffix"
        raise UsageError(
            f"{path}: no reader for {suffix}; known: {suffixes}",
            fix="convert the file to one of these formats",
        )
    open_source(path)
    opening = opening or Opening()
    most = most_bytes(path, opening.max_bytes)
    try:
        source = reader(path, replace(opening, max_bytes=most))
    except (UsageError, DataError):
        raise
    except MemoryError:
        raise DataError(
            f"{path}: does not fit into memory",
            fix="convert the file to .npy, .h5 or .safetensors, which stay on disk",
        ) from None
    except Exception as error:  # libraries raise many types on files of another format
        raise DataError(
            f"{path}: cannot be read as {path.suffix}: {reason_of(error)}",
            fix="check that the file is complete and that its suffix matches its format",
        ) from error
    try:
        check_declared(path, source.n, source.width, np.dtype(source.dtype).itemsize, most)
    except BaseException:
        source.close()
        raise
    return source


def _npy(path: Path, opening: Opening) -> Source:
    def open_mapped() -> Any:
        return np.load(path, mmap_mode="r", allow_pickle=False)

    try:
        return array_source(path, open_mapped(), open_mapped)
    except ValueError as error:
        if "pickle" not in str(error).lower() and "object" not in str(error).lower():
            raise
        if not opening.unsafe_pickle:
            raise DataError(f"{path}: contains pickled objects", fix=UNSAFE) from None
        return _objects(path, np.load(path, allow_pickle=True), opening)


def _safetensors(path: Path, opening: Opening) -> Source:

    import safetensors

    # Tensors stay on disk until their rows are read.
    def open_mapped() -> dict[str, Any]:
        with safetensors.safe_open(path, framework="pt") as file:
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118

    with safetensors.safe_open(path, framework="pt") as file:
        metadata = file.metadata() or {}
    tensors = open_mapped()
    if opening.key is not None or "ids" not in metadata:
        return select_array(path, tensors, opening.key)
    # A file from `exporting`.
    source = array_source(path, tensors["vectors"], lambda: open_mapped()["vectors"])
    ids, observed = parse_json(metadata["ids"], f"{path}: ids"), tensors["observed"].numpy()
    if not isinstance(ids, list) or not len(ids) == len(observed) == source.n:
        raise DataError(
            f"{path}: the number of ids differs from the {counted(source.n, 'row')}",
            fix="export the store again with `mmkgc features export`",
        )
    return replace(source, keys=list(map(str, ids)), observed=observed)


def _torch(path: Path, opening: Opening) -> Source:
    import torch

    try:
        try:
            loaded = torch.load(path, map_location="cpu", weights_only=True, mmap=True)
        except (RuntimeError, ValueError):  # the format before torch 1.6 cannot be mapped
            loaded = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError:
        if not opening.unsafe_pickle:
            raise DataError(f"{path}: contains objects other than tensors", fix=UNSAFE) from None
        loaded = torch.load(path, map_location="cpu", weights_only=False)
    return _objects(path, loaded, opening)


def _pickle(path: Path, opening: Opening) -> Source:
    if not opening.unsafe_pickle:
        raise DataError(f"{path}: is a pickle", fix=UNSAFE)
    with path.open("rb") as file:
        return _objects(path, pickle.load(file), opening)


def _objects(path: Path, loaded: Any, opening: Opening) -> Source:
    """Converts an unpickled object: an array or tensor, a list of vectors, or a mapping."""
    if isinstance(loaded, np.ndarray) and loaded.dtype == object:
        loaded = loaded.item() if loaded.ndim == 0 else list(loaded)
    if isinstance(loaded, Mapping):
        arrays = {str(name): _numeric(path, value, opening) for name, value in loaded.items()}
        return select_array(path, arrays, opening.key)
    if isinstance(loaded, (list, tuple)):
        vectors = [_numeric(path, value, opening) for value in loaded]
        lengths = {vector.shape for vector in vectors}
        if len(lengths) != 1:
            raise DataError(
                f"{path}: a list of vectors of {len(lengths)} shapes, expected one",
                fix="store vectors of one width",
            )
        return array_source(path, np.stack(vectors))
    return array_source(path, _numeric(path, loaded, opening, keep_tensor=True))


def _numeric(path: Path, value: Any, opening: Opening, keep_tensor: bool = False) -> Any:
    import torch

    if isinstance(value, torch.Tensor):
        value = value.detach()
        size = value.numel() * value.element_size()
        check_bytes(path, f"a tensor of shape {tuple(value.shape)}", size, opening.max_bytes)
        return value if keep_tensor or value.dim() > 1 else value.float().numpy()
    array = np.asarray(value)
    if array.dtype == object:
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiu":
        raise DataError(f"{path}: contains {type(value).__name__}, expected numbers", fix=NUMBERS)
    return array


def _tsv(path: Path, opening: Opening) -> Source:
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


_READERS: dict[str, Callable[[Path, Opening], Source]] = {
    ".npy": _npy,
    ".npz": open_npz,
    ".h5": open_hdf5,
    ".hdf5": open_hdf5,
    ".safetensors": _safetensors,
    ".pth": _torch,
    ".pt": _torch,
    ".bin": _torch,
    ".tsv": _tsv,
    ".pkl": _pickle,
    ".pickle": _pickle,
}
