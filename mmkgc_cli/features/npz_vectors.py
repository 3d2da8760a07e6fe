"""Vectors of an .npz archive, decompressed block by block.

Headers are read first, and the sizes that they declare are checked before any value is
decompressed. Large arrays are decompressed into a nameless temporary file and mapped, so that
memory does not grow with them.
"""

from __future__ import annotations

import math
import tempfile
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.sizes import check_bytes, check_room
from mmkgc_cli.features.vectors import UNSAFE, Opening, Source, needed_arrays, select_array
from mmkgc_cli.state.atomic import storage_errors
from mmkgc_cli.text import counted

_IN_MEMORY = 1 << 26  # bytes that need no temporary file
_BLOCK = 1 << 20
_FIX = "write the file again"


@dataclass(frozen=True)
class _Declared:
    """What the header of an array says."""

    member: str
    shape: tuple[int, ...]
    is_fortran: bool
    dtype: np.dtype[Any]

    @property
    def nbytes(self) -> int:
        return math.prod(self.shape) * self.dtype.itemsize


@dataclass(frozen=True)
class _Mapped:
    """An array in a temporary file, mapped for each read; its pages would stay in memory."""

    file: IO[bytes]
    offset: int
    declared: _Declared

    @property
    def shape(self) -> tuple[int, ...]:
        return self.declared.shape

    @property
    def dtype(self) -> np.dtype[Any]:
        return self.declared.dtype

    def __getitem__(self, rows: Any) -> NDArray[Any]:
        order = "F" if self.declared.is_fortran else "C"
        mapped = np.memmap(self.file, self.dtype, "r", self.offset, self.shape, order)  # type: ignore[call-overload]
        return np.array(mapped[rows])


def open_npz(path: Path, opening: Opening) -> Source:
    """Opens an .npz archive.

    Raises:
        UsageError: the array of `opening.key` is missing, or a key is necessary.
        DataError: the file is damaged, has pickles, or declares too much.
    """
    if not zipfile.is_zipfile(path):
        raise DataError(f"{path}: not an .npz archive, or truncated", fix=_FIX)
    with zipfile.ZipFile(path) as archive:
        declared: dict[str, _Declared] = {}
        for info in archive.infolist():
            with archive.open(info) as member:
                name = info.filename.removesuffix(".npy")
                declared[name] = _header(path, info.filename, member)
        needed = {name: declared[name] for name in needed_arrays(declared, opening.key)}
        objects = [name for name, array in needed.items() if array.dtype.hasobject]
        if objects and not opening.unsafe_pickle:
            raise DataError(f"{path}: {objects[0]!r} contains pickled objects", fix=UNSAFE)
        size = sum(array.nbytes for array in needed.values())
        check_bytes(path, counted(len(needed), "array"), size, opening.max_bytes)
        if size <= _IN_MEMORY or objects:
            arrays = {name: _load(path, archive, array) for name, array in needed.items()}
            return select_array(path, declared | arrays, opening.key)
        return _spooled(path, archive, opening, declared, needed, size)


def _spooled(
    path: Path, archive: zipfile.ZipFile, opening: Opening, declared: Mapping[str, _Declared],
    needed: Mapping[str, _Declared], size: int,
) -> Source:  # fmt: skip
    scratch = opening.scratch or Path(tempfile.gettempdir())
    check_room(scratch / "vectors", size)
    file = tempfile.TemporaryFile(dir=scratch)  # noqa: SIM115
    try:
        mapped: dict[str, Any] = {}
        for name, array in needed.items():
            offset = -(-file.tell() // 64) * 64
            file.seek(offset)
            with archive.open(array.member) as member:
                _header(path, array.member, member)
                _copy(path, member, file, array, scratch)
            mapped[name] = _Mapped(file, offset, array)
        with storage_errors(scratch):
            file.flush()
        source = select_array(path, {**declared, **mapped}, opening.key)
    except BaseException:
        file.close()
        raise
    return replace(source, close=file.close)


def _header(path: Path, name: str, member: IO[bytes]) -> _Declared:
    try:
        version = npy.read_magic(member)
        read = {(1, 0): npy.read_array_header_1_0, (2, 0): npy.read_array_header_2_0}[version]
        shape, is_fortran, dtype = read(member)
    except (KeyError, ValueError) as error:
        reason = (str(error).splitlines() or [""])[0]
        raise DataError(f"{path}: {name!r} is no array: {reason}", fix=_FIX) from None
    if min(shape, default=0) < 0:
        raise DataError(f"{path}: {name!r} has shape {shape}", fix=_FIX)
    return _Declared(name, shape, is_fortran, dtype)


def _load(path: Path, archive: zipfile.ZipFile, array: _Declared) -> NDArray[Any]:
    with archive.open(array.member) as member:
        try:
            loaded: NDArray[Any] = npy.read_array(member, allow_pickle=array.dtype.hasobject)
        except ValueError as error:
            raise DataError(f"{path}: {error}", fix=_FIX) from None
        _require_end(path, member, array)
    return loaded


def _copy(path: Path, member: IO[bytes], file: IO[bytes], array: _Declared, scratch: Path) -> None:
    """Decompresses a member; `scratch` is the folder of `file`, for messages."""
    missing = array.nbytes
    while missing:
        block = member.read(min(_BLOCK, missing))
        if not block:
            raise DataError(f"{path}: {array.member!r} is truncated", fix=_FIX)
        with storage_errors(scratch):
            file.write(block)
        missing -= len(block)
    _require_end(path, member, array)


def _require_end(path: Path, member: IO[bytes], array: _Declared) -> None:
    """Reads the end, where the checksum of the member is verified."""
    if member.read(1):
        raise DataError(f"{path}: {array.member!r} is longer than its header says", fix=_FIX)
