"""Checksums of a large file, held against each part when it is first read.

A store of gigabytes is not to be read whole before its first row, and the HDF5 library crashes, or
never comes back, over damaged files. So a table of CRC-32, one for each block, stands behind what
HDF5 wrote, and HDF5 reads through `SealedFile`, which checks each block before it hands it out. The
user block before it all, which HDF5 leaves alone, holds the length, a CRC-32 of the table, and a
SHA-256 of everything, which is the identity of the store; only `verify` reads all for it.
"""

from __future__ import annotations

import hashlib
import io
import os
import re
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmkgc_cli.errors import DataError

USER_BLOCK = 512  # the smallest HDF5 allows
_MAGIC = b"mmkgc features\n"
_SEAL = re.compile(
    re.escape(_MAGIC) + rb"size ([0-9]{1,18})\ntable ([0-9a-f]{8})\nsha256 ([0-9a-f]{64})\n\0*"
)
_BLOCK = 1 << 18  # bytes under one checksum


@dataclass(frozen=True)
class Seal:
    """Length of what HDF5 wrote, a checksum of table and identity, and the identity of it all."""

    size: int
    table: int
    sha256: str

    @property
    def blocks(self) -> int:
        """How many checksums there are."""
        return -(-(self.size - USER_BLOCK) // _BLOCK)

    @property
    def length(self) -> int:
        """Bytes of the file."""
        return self.size + 4 * self.blocks


def seal(file: IO[bytes]) -> None:
    """Closes what HDF5 wrote into an open file: table behind, user block before; reads it all."""
    size = file.seek(0, os.SEEK_END)
    file.seek(USER_BLOCK)
    table = bytearray()
    digest = hashlib.sha256()
    while block := file.read(_BLOCK):
        table += zlib.crc32(block).to_bytes(4, "little")
        digest.update(block)
    file.write(table)
    digest.update(table)
    identity = digest.hexdigest().encode()
    check = zlib.crc32(identity, zlib.crc32(table))
    text = b"size %d\ntable %08x\nsha256 %b\n" % (size, check, identity)
    file.seek(0)
    file.write((_MAGIC + text).ljust(USER_BLOCK, b"\0"))


def read_seal(path: Path) -> Seal:
    """Reads the user block and holds the length of the file against it.

    Raises:
        DataError: when the file is missing, cut off, or no feature store.
    """
    if path.is_dir():
        raise DataError(f"{path}: is a folder, expected a feature store (.h5)")
    try:
        with path.open("rb") as file:
            text = file.read(USER_BLOCK)
            length = file.seek(0, os.SEEK_END)
    except FileNotFoundError:
        raise DataError(f"{path}: no such file; make it with `mmkgc features import`") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    found = _SEAL.fullmatch(text)
    if not found:
        raise DataError(
            f"{path}: not a feature store that mmkgc wrote, or cut off; "
            "`mmkgc features import` takes files of others"
        )
    seal = Seal(int(found[1]), int(found[2], 16), found[3].decode())
    expected = seal.length
    if length != expected:
        state = "cut off" if length < expected else "longer than it should be"
        raise DataError(f"{path}: {state}: {length:,} bytes, expected {expected:,}; make it again")
    return seal


class SealedFile(io.RawIOBase):
    """What HDF5 wrote into a sealed file, each block checked when it is first read."""

    def __init__(self, path: Path, seal: Seal) -> None:
        """Opens the file and checks its table.

        Raises:
            DataError: when the table is damaged.
        """
        self._path = path
        self._seal = seal
        self._at = 0
        self._file = path.open("rb", buffering=0)
        self._file.seek(seal.size)
        self._table = self._file.read(4 * seal.blocks) or b""
        if zlib.crc32(seal.sha256.encode(), zlib.crc32(self._table)) != seal.table:
            raise self._damaged()
        self._sound = bytearray(seal.blocks)
        self._spare = memoryview(bytearray(_BLOCK))

    def _damaged(self) -> DataError:
        return DataError(f"{self._path}: damaged, or changed since it was written; make it again")

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Moves to a place in what HDF5 wrote; the table is not part of it."""
        self._at = offset + {os.SEEK_CUR: self._at, os.SEEK_END: self._seal.size}.get(whence, 0)
        return self._at

    def tell(self) -> int:
        """The present place."""
        return self._at

    def readinto(self, buffer: Any) -> int:
        """Fills `buffer` from the present place on.

        Raises:
            DataError: when a block that it touches is damaged.
        """
        view = memoryview(buffer).cast("B")
        start, stop = self._at, min(self._at + len(view), self._seal.size)
        if stop <= start:
            return 0
        low = max(0, (start - USER_BLOCK) // _BLOCK)
        high = max(0, -(-(stop - USER_BLOCK) // _BLOCK))
        if self._sound.find(0, low, high) < 0:
            self._read(view[: stop - start], start)
        else:
            self._read_checked(view, start, stop, low, high)
        self._at = stop
        return stop - start

    def _read_checked(self, view: memoryview, start: int, stop: int, low: int, high: int) -> None:
        """Reads what the blocks `low` to `high` hold of it, and checks those not yet checked."""
        if start < USER_BLOCK:
            self._read(view[: min(USER_BLOCK, stop) - start], start)
        for number in range(low, high):
            first = USER_BLOCK + number * _BLOCK
            last = min(first + _BLOCK, self._seal.size)
            begin, end = max(first, start), min(last, stop)
            wanted = view[begin - start : end - start]
            whole = end - begin == last - first
            if whole or self._sound[number]:
                self._read(wanted, begin)
            if self._sound[number]:
                continue
            block = wanted if whole else self._spare[: last - first]
            if not whole:
                self._read(block, first)
            if zlib.crc32(block) != int.from_bytes(self._table[4 * number :][:4], "little"):
                raise self._damaged()
            self._sound[number] = 1
            if not whole:
                wanted[:] = block[begin - first : end - first]

    def _read(self, view: memoryview, at: int) -> None:
        self._file.seek(at)
        while view:
            count = self._file.readinto(view)
            if not count:
                raise self._damaged()
            view = view[count:]

    def verify(self) -> None:
        """Reads everything and holds it against the SHA-256.

        Raises:
            DataError: when any of it is damaged.
        """
        self._file.seek(USER_BLOCK)
        if hashlib.file_digest(self._file, "sha256").hexdigest() != self._seal.sha256:
            raise self._damaged()
