"""Checksums of a store, verified block by block when a block is first read.

Reading a store of several gigabytes before its first row is too slow, and the HDF5 library crashes
or hangs on damaged files. A table of CRC-32 checksums, one per block, therefore follows the HDF5
data, and HDF5 reads through `CheckedFile`, which verifies each block before it returns data. The
user block at the start, which HDF5 ignores, holds the length, a CRC-32 of the table, and a SHA-256
of data and table, which is the identity of the store. Only `verify` computes the SHA-256 again.
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
from mmkgc_cli.state.regular import open_regular

USER_BLOCK = 512  # bytes; the minimum of HDF5
_MAGIC = b"mmkgc features\n"
_HEADER = re.compile(
    re.escape(_MAGIC) + rb"size ([0-9]{1,18})\ntable ([0-9a-f]{8})\nsha256 ([0-9a-f]{64})\n\0*"
)
_BLOCK = 1 << 18  # bytes per checksum
_FIX = (
    "make the store again with `mmkgc extract` or `mmkgc features import`, or copy it again from "
    "its source"
)


@dataclass(frozen=True)
class Checksums:
    """Length of the HDF5 data, CRC-32 of table and identity, and SHA-256 (the identity)."""

    size: int
    table: int
    sha256: str

    @property
    def blocks(self) -> int:
        """Number of checksums in the table."""
        return -(-(self.size - USER_BLOCK) // _BLOCK)

    @property
    def length(self) -> int:
        """Length of the file in bytes."""
        return self.size + 4 * self.blocks


def write_checksums(file: IO[bytes]) -> str:
    """Reads the HDF5 data of an open file, writes table and user block, returns the identity."""
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
    return digest.hexdigest()


def open_store(path: Path) -> io.FileIO:
    """Opens the file of a store.

    Raises:
        DataError: the file is missing, unreadable, or not a regular file.
    """
    if path.is_dir():
        raise DataError(
            f"{path}: is a folder, expected a feature store (.h5)",
            fix="give a file in it, such as FOLDER/features/MODALITY.h5",
        )
    missing = "check the path, or make the store with `mmkgc extract` or `mmkgc features import`"
    return open_regular(path, missing)


def read_checksums(path: Path, file: io.FileIO) -> Checksums:
    """Reads the user block of an open file and checks the length of the file.

    Raises:
        DataError: the file is truncated, unreadable, or not a feature store.
    """
    try:
        file.seek(0)
        text = file.read(USER_BLOCK)
        length = file.seek(0, os.SEEK_END)
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}", fix="check its permissions and the disk"
        ) from error
    match = _HEADER.fullmatch(text)
    if not match:
        raise DataError(
            f"{path}: not a feature store written by mmkgc, or truncated",
            fix="convert other files of vectors with `mmkgc features import`",
        )
    checksums = Checksums(int(match[1]), int(match[2], 16), match[3].decode())
    expected = checksums.length
    if length != expected:
        state = "truncated" if length < expected else "too long"
        raise DataError(f"{path}: {state}: {length:,} bytes, expected {expected:,}", fix=_FIX)
    return checksums


class CheckedFile(io.RawIOBase):
    """The HDF5 data of a store as a file; each block is verified when it is first read."""

    def __init__(self, path: Path, checksums: Checksums, file: io.FileIO) -> None:
        """Verifies the table of an open file, which `close` closes.

        Raises:
            DataError: the table is damaged.
        """
        self._path = path
        self._checksums = checksums
        self._position = 0
        self._file = file
        self._file.seek(checksums.size)
        self._table = self._file.read(4 * checksums.blocks) or b""
        if zlib.crc32(checksums.sha256.encode(), zlib.crc32(self._table)) != checksums.table:
            raise self._damaged()
        self._verified = bytearray(checksums.blocks)
        self._buffer = memoryview(bytearray(_BLOCK))

    def _damaged(self) -> DataError:
        return DataError(f"{self._path}: damaged, or changed since it was written", fix=_FIX)

    def close(self) -> None:
        """Closes the file."""
        self._file.close()
        super().close()

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        """Sets the position within the HDF5 data."""
        self._position = offset + {
            os.SEEK_CUR: self._position,
            os.SEEK_END: self._checksums.size,
        }.get(whence, 0)
        return self._position

    def tell(self) -> int:
        """The current position."""
        return self._position

    def readinto(self, buffer: Any) -> int:
        """Reads into `buffer` from the current position.

        Raises:
            DataError: a block in this range is damaged.
        """
        view = memoryview(buffer).cast("B")
        start, stop = self._position, min(self._position + len(view), self._checksums.size)
        if stop <= start:
            return 0
        first_block = max(0, (start - USER_BLOCK) // _BLOCK)
        last_block = max(0, -(-(stop - USER_BLOCK) // _BLOCK))
        if self._verified.find(0, first_block, last_block) < 0:
            self._read(view[: stop - start], start)
        else:
            self._read_checked(view, start, stop, first_block, last_block)
        self._position = stop
        return stop - start

    def _read_checked(
        self, view: memoryview, start: int, stop: int, first_block: int, last_block: int
    ) -> None:
        """Reads the range from the given blocks and verifies those not yet verified."""
        if start < USER_BLOCK:
            self._read(view[: min(USER_BLOCK, stop) - start], start)
        for number in range(first_block, last_block):
            block_start = USER_BLOCK + number * _BLOCK
            block_end = min(block_start + _BLOCK, self._checksums.size)
            part_start, part_end = max(block_start, start), min(block_end, stop)
            target = view[part_start - start : part_end - start]
            is_whole = part_end - part_start == block_end - block_start
            if is_whole or self._verified[number]:
                self._read(target, part_start)
            if self._verified[number]:
                continue
            block = target if is_whole else self._buffer[: block_end - block_start]
            if not is_whole:
                self._read(block, block_start)
            if zlib.crc32(block) != int.from_bytes(self._table[4 * number :][:4], "little"):
                raise self._damaged()
            self._verified[number] = 1
            if not is_whole:
                target[:] = block[part_start - block_start : part_end - block_start]

    def _read(self, view: memoryview, position: int) -> None:
        self._file.seek(position)
        while view:
            count = self._file.readinto(view)
            if not count:
                raise self._damaged()
            view = view[count:]

    def verify(self) -> None:
        """Reads the whole file and compares its SHA-256.

        Raises:
            DataError: the file is damaged.
        """
        self._file.seek(USER_BLOCK)
        if hashlib.file_digest(self._file, "sha256").hexdigest() != self._checksums.sha256:
            raise self._damaged()
