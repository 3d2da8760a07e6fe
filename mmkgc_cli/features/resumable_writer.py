"""A writer that appends rows to a partial file, so that an interrupted extraction can resume."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

import numpy as np

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.features.format import SLAB_BYTES, Floats, Mask
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.writing import FeatureBlock, check_distinct, check_format, write_store
from mmkgc_cli.state import files
from mmkgc_cli.state.atomic import make_folder, storage_errors
from mmkgc_cli.state.parsing import parse_json

_MAGIC = b"mmkgc part 2\n"
_RECORD = struct.Struct("<QI")  # length and CRC-32 of the record
_LENGTHS = struct.Struct("<QQQ")  # number of rows, bytes of their ids, bytes of notes


class ResumableWriter:
    """Appends rows to ``PATH.part``; `finish` writes the store at PATH from them.

    Each `append` writes a record with a checksum. After a kill, a torn record at the end of the
    file is removed when the next writer opens it. PATH is not changed before `finish`, which
    replaces it atomically. A lock on the file, where the system has such locks, excludes a second
    writer.
    """

    def __init__(
        self, path: Path, metadata: Metadata, width: int, job: Mapping[str, Any], *,
        dtype: str = "float32", resume: bool = True,
    ) -> None:  # fmt: skip
        """Opens ``PATH.part`` and reads its complete records.

        Args:
            path: the store.
            metadata: metadata of the store.
            width: length of a vector.
            job: plain JSON; a file can only be resumed with the same job.
            dtype: "float32" or "float16".
            resume: keep the rows of an existing file; False discards them.

        Raises:
            DataError: the existing file belongs to another job.
            MmkgcError: another process has locked the file.
        """
        check_format(dtype, None)
        self.path = path
        self.part_path = path.with_name(path.name + ".part")
        self.width, self.dtype = width, dtype
        self._metadata = metadata
        self.ids: list[str] = []  # of the appended rows, in order
        self.observed: list[bool] = []  # of the appended rows, in order
        self.notes: list[Any] = []  # of all records
        header = {"about": metadata.as_object(), "width": width, "dtype": dtype, "job": dict(job)}
        self._header = json.dumps(header, ensure_ascii=False, sort_keys=True).encode() + b"\n"
        make_folder(path.parent)
        with storage_errors(self.part_path):
            self._file = files.open_file(self.part_path, "ab")
        try:
            with storage_errors(self.part_path):
                self._lock()
                if not resume:
                    self._file.truncate(0)
                self._resume()
        except BaseException:
            self._close()
            raise

    def _close(self) -> None:
        """Closes the partial file, which writes what is buffered."""
        with storage_errors(self.part_path):
            self._file.close()

    def _lock(self) -> None:
        if os.name != "posix":  # no flock
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Another writer may have finished and removed the file before it was locked.
            owns_file = self.part_path.exists() and os.path.samestat(
                os.fstat(self._file.fileno()), self.part_path.stat()
            )
        except BlockingIOError:
            owns_file = False
        if not owns_file:
            raise MmkgcError(
                f"{self.path}: another process is making this store",
                fix="wait for it to end, then run the command again",
            )

    def __enter__(self) -> ResumableWriter:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def _resume(self) -> None:
        start = _MAGIC + self._header
        with self.part_path.open("rb") as file:
            start_bytes = file.read(len(start))
        end = len(start)
        # A header is new, or torn by a kill or a power cut, which leaves zeros. Records that follow
        # the shorter header of another job may contain zeros.
        is_torn = len(start_bytes) < len(start) and start.startswith(start_bytes)
        header, _, _ = start_bytes[len(_MAGIC) :].partition(b"\n")
        if is_torn or b"\0" in start_bytes[: len(_MAGIC)] + header:
            self._file.truncate(0)
            files.sync(self._file)  # old records must not follow the new header
            self._file.write(start)
            files.sync(self._file)
            files.sync_folder(self.part_path.parent)
        elif start_bytes != start:
            raise DataError(
                f"{self.part_path}: left by another job (other inputs, encoder or settings)",
                fix="delete this file, or add --overwrite",
            )
        for rows, notes, record_end in self._records():
            self.ids.extend(rows.ids)
            self.observed.extend(rows.observed.tolist())
            self.notes.extend(notes)
            end = record_end
        self._file.truncate(end)

    def append(
        self, ids: Sequence[str], vectors: Floats, observed: Mask, notes: Sequence[Any] = ()
    ) -> None:
        """Appends rows; after the call, a kill of the process does not lose them.

        Args:
            ids: entity ids of the rows.
            vectors: ``[k, width]``.
            observed: bool ``[k]``.
            notes: plain JSON for the next writer; not part of the store.

        Raises:
            DataError: the rows are invalid (`FeatureBlock.checked`), or cannot be written.
        """
        rows = FeatureBlock(ids, vectors, observed).checked(self.path, self.width, self.dtype)
        names = "\n".join(rows.ids).encode()
        note_bytes = json.dumps(list(notes), ensure_ascii=False).encode()
        data = b"".join(
            [
                _LENGTHS.pack(len(rows.ids), len(names), len(note_bytes)), names, note_bytes,
                rows.observed.tobytes(), rows.vectors.tobytes(),
            ]
        )  # fmt: skip
        with storage_errors(self.part_path):
            self._file.write(_RECORD.pack(len(data), zlib.crc32(data)) + data)
            self._file.flush()
        self.ids.extend(rows.ids)
        self.observed.extend(rows.observed.tolist())
        self.notes.extend(notes)

    def finish(self, compression: str | None = None, ids: Sequence[str] | None = None) -> Path:
        """Writes the store from all rows and removes the partial file.

        Args:
            compression: None, "gzip" or "lzf".
            ids: ids of the store, in order; must contain all appended ids, the others become
                unobserved. None for the appended ids in their order.

        Raises:
            DataError: an id is repeated, there is no row, or the store cannot be written.
        """
        blocks = (rows for rows, _, _ in self._records()) if ids is None else self._ordered(ids)
        write_store(
            self.path, self._metadata, blocks, n=len(self.ids if ids is None else ids),
            width=self.width, dtype=self.dtype, compression=compression,
        )  # fmt: skip
        self.discard()
        return self.path

    def discard(self) -> None:
        """Removes the partial file."""
        with storage_errors(self.part_path):
            if os.name != "posix":  # open files cannot be removed
                self._file.close()
            files.unlink(self.part_path)
            files.sync_folder(self.part_path.parent)
            self._file.close()

    def _ordered(self, ids: Sequence[str]) -> Iterator[FeatureBlock]:
        """The rows in the order of `ids`, read at their offsets in the partial file."""
        check_distinct(self.ids, self.path)
        if others := set(self.ids).difference(ids):
            raise ValueError(f"{self.path}: {min(others)!r} is not among the rows of the store")
        row_bytes = self.width * np.dtype(self.dtype).itemsize
        locations: dict[str, tuple[int, bool]] = {}
        for rows, _, end in self._records():
            offset = end - len(rows.ids) * row_bytes
            for name, is_observed in zip(rows.ids, rows.observed.tolist(), strict=True):
                locations[name] = (offset, is_observed)
                offset += row_bytes
        step = max(1, SLAB_BYTES // row_bytes)
        with self.part_path.open("rb") as file:
            for start in range(0, len(ids), step):
                block_ids = ids[start : start + step]
                vectors = np.zeros((len(block_ids), self.width), dtype=self.dtype)
                observed = np.zeros(len(block_ids), dtype=bool)
                for row, name in enumerate(block_ids):
                    offset, observed[row] = locations.get(name, (0, False))
                    if observed[row]:
                        vectors[row] = self._row(file, offset, row_bytes)
                yield FeatureBlock(block_ids, vectors, observed)

    def _row(self, file: IO[bytes], offset: int, size: int) -> Floats:
        file.seek(offset)
        return np.frombuffer(file.read(size), dtype=self.dtype)

    def _records(self) -> Iterator[tuple[FeatureBlock, list[Any], int]]:
        """The complete records: rows, notes, and the offset of the end of the record."""
        with self.part_path.open("rb") as file:
            file.seek(len(_MAGIC) + len(self._header))
            size = os.fstat(file.fileno()).st_size
            while True:
                head = file.read(_RECORD.size)
                if len(head) < _RECORD.size:
                    return
                length, checksum = _RECORD.unpack(head)
                # A power cut may leave zeros, which are a record without data and its CRC-32.
                if not _LENGTHS.size <= length <= size - file.tell():
                    return
                data = file.read(length)
                if len(data) < length or zlib.crc32(data) != checksum:
                    return
                yield *self._parsed(data), file.tell()

    def _parsed(self, data: bytes) -> tuple[FeatureBlock, list[Any]]:
        k, name_size, note_size = _LENGTHS.unpack_from(data)
        offset = _LENGTHS.size + name_size
        ids = data[_LENGTHS.size : offset].decode().split("\n") if k else []
        notes = parse_json(data[offset : offset + note_size], str(self.part_path))
        observed = np.frombuffer(data, dtype=bool, count=k, offset=offset + note_size)
        vectors = np.frombuffer(data, dtype=self.dtype, offset=offset + note_size + k)
        return FeatureBlock(ids, vectors.reshape(k, self.width), observed), notes
