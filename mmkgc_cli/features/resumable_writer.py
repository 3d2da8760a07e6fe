"""Rows on their way into a store: a file that grows, and that a killed writer can go on with."""

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
from mmkgc_cli.features.metadata import About
from mmkgc_cli.features.writing import Rows, check_distinct, check_format, write_store
from mmkgc_cli.state.atomic import make_folder, storage_errors

_MAGIC = b"mmkgc part 2\n"
_RECORD = struct.Struct("<QI")  # length and CRC-32 of what follows
_LENGTHS = struct.Struct("<QQQ")  # rows, bytes of their ids, bytes of notes


class StorePart:
    """Appends rows to ``PATH.part`` and makes the store at PATH from them in the end.

    Each `append` is a record with a checksum. A writer that is killed leaves whole records, and at
    most one torn at the end, which goes when the next one begins; PATH is not touched before
    `finish`, which replaces it at once. One process writes at a time: the part is locked, where
    the system has such locks.
    """

    def __init__(
        self, path: Path, about: About, width: int, job: Mapping[str, Any], *,
        dtype: str = "float32", resume: bool = True,
    ) -> None:  # fmt: skip
        """Begins, or goes on.

        Args:
            path: of the store.
            about: its attributes.
            width: of a vector.
            job: whatever else must be the same for rows to belong together; plain JSON.
            dtype: "float32" or "float16".
            resume: go on with the part that is there; otherwise it is thrown away.

        Raises:
            DataError: when the part that is there was made by another job.
            MmkgcError: while another process writes it.
        """
        check_format(dtype, None)
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.width, self.dtype = width, dtype
        self._about = about
        self.ids: list[str] = []  # of the rows that are there, in order
        self.observed: list[bool] = []  # which of them were
        self.notes: list[Any] = []  # all that came with them
        header = {"about": about.as_object(), "width": width, "dtype": dtype, "job": dict(job)}
        self._header = json.dumps(header, ensure_ascii=False, sort_keys=True).encode() + b"\n"
        make_folder(path.parent)
        with storage_errors(self.part):
            self._file = self.part.open("ab")
        try:
            with storage_errors(self.part):
                self._lock()
                if not resume:
                    self._file.truncate(0)
                self._go_on()
        except BaseException:
            self._file.close()
            raise

    def _lock(self) -> None:
        if os.name != "posix":  # no such locks there
            return
        import fcntl

        try:
            fcntl.flock(self._file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            # Whoever held it may have finished and removed it in between.
            mine = self.part.exists() and os.path.samestat(
                os.fstat(self._file.fileno()), self.part.stat()
            )
        except BlockingIOError:
            mine = False
        if not mine:
            raise MmkgcError(f"{self.path}: another process is making this store")

    def __enter__(self) -> StorePart:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _go_on(self) -> None:
        start = _MAGIC + self._header
        with self.part.open("rb") as file:
            found = file.read(len(start))
        end = len(start)
        if len(found) < len(start) and start.startswith(found):  # new, or killed in the header
            self._file.truncate(0)
            self._file.write(start)
            self._file.flush()
        elif found != start:
            raise DataError(
                f"{self.part}: left by another job (other inputs, encoder or settings); "
                "remove it to begin anew"
            )
        for rows, notes, behind in self._records():
            self.ids.extend(rows.ids)
            self.observed.extend(rows.observed.tolist())
            self.notes.extend(notes)
            end = behind
        self._file.truncate(end)

    def append(
        self, ids: Sequence[str], vectors: Floats, observed: Mask, notes: Sequence[Any] = ()
    ) -> None:
        """Adds rows ``[k, width]``; they are safe from a kill of the process when this returns.

        Args:
            ids: of the rows.
            vectors: of the rows.
            observed: which rows were.
            notes: whatever whoever goes on should know of them, plain JSON; not in the store.

        Raises:
            DataError: when they cannot be stored (`Rows.checked`), or the storage refuses.
        """
        rows = Rows(ids, vectors, observed).checked(self.path, self.width, self.dtype)
        names = "\n".join(rows.ids).encode()
        said = json.dumps(list(notes), ensure_ascii=False).encode()
        data = b"".join(
            [
                _LENGTHS.pack(len(rows.ids), len(names), len(said)), names, said,
                rows.observed.tobytes(), rows.vectors.tobytes(),
            ]
        )  # fmt: skip
        with storage_errors(self.part):
            self._file.write(_RECORD.pack(len(data), zlib.crc32(data)) + data)
            self._file.flush()
        self.ids.extend(rows.ids)
        self.observed.extend(rows.observed.tolist())
        self.notes.extend(notes)

    def finish(self, compression: str | None = None, ids: Sequence[str] | None = None) -> Path:
        """Makes the store from all rows and removes the part.

        Args:
            compression: None, "gzip" or "lzf".
            ids: the rows of the store, in order, those that were appended among them; the others
                become unobserved. None for what was appended, as it was.

        Raises:
            DataError: when an id came twice, there is no row, or the storage refuses.
        """
        blocks = (rows for rows, _, _ in self._records()) if ids is None else self._ordered(ids)
        write_store(
            self.path, self._about, blocks, n=len(self.ids if ids is None else ids),
            width=self.width, dtype=self.dtype, compression=compression,
        )  # fmt: skip
        self.discard()
        return self.path

    def discard(self) -> None:
        """Removes the part."""
        with storage_errors(self.part):
            if os.name != "posix":  # where open files cannot be removed
                self._file.close()
            self.part.unlink()
            self._file.close()

    def _ordered(self, ids: Sequence[str]) -> Iterator[Rows]:
        """The rows in the order of `ids`, from the places where they stand in the part."""
        check_distinct(self.ids, self.path)
        if others := set(self.ids).difference(ids):
            raise ValueError(f"{self.path}: {min(others)!r} is not among the rows of the store")
        row_bytes = self.width * np.dtype(self.dtype).itemsize
        place: dict[str, tuple[int, bool]] = {}
        for rows, _, behind in self._records():
            first = behind - len(rows.ids) * row_bytes
            for i, (name, seen) in enumerate(zip(rows.ids, rows.observed.tolist(), strict=True)):
                place[name] = (first + i * row_bytes, seen)
        step = max(1, SLAB_BYTES // row_bytes)
        with self.part.open("rb") as file:
            for start in range(0, len(ids), step):
                chosen = ids[start : start + step]
                vectors = np.zeros((len(chosen), self.width), dtype=self.dtype)
                observed = np.zeros(len(chosen), dtype=bool)
                for row, name in enumerate(chosen):
                    at, observed[row] = place.get(name, (0, False))
                    if observed[row]:
                        vectors[row] = self._row(file, at, row_bytes)
                yield Rows(chosen, vectors, observed)

    def _row(self, file: IO[bytes], at: int, size: int) -> Floats:
        file.seek(at)
        return np.frombuffer(file.read(size), dtype=self.dtype)

    def _records(self) -> Iterator[tuple[Rows, list[Any], int]]:
        """The whole records, with their notes, each with the place behind it."""
        with self.part.open("rb") as file:
            file.seek(len(_MAGIC) + len(self._header))
            size = os.fstat(file.fileno()).st_size
            while True:
                head = file.read(_RECORD.size)
                if len(head) < _RECORD.size:
                    return
                length, checksum = _RECORD.unpack(head)
                if length > size - file.tell():
                    return
                data = file.read(length)
                if len(data) < length or zlib.crc32(data) != checksum:
                    return
                yield *self._parsed(data), file.tell()

    def _parsed(self, data: bytes) -> tuple[Rows, list[Any]]:
        k, of_names, of_notes = _LENGTHS.unpack_from(data)
        at = _LENGTHS.size + of_names
        ids = data[_LENGTHS.size : at].decode().split("\n") if k else []
        notes = json.loads(data[at : at + of_notes])
        observed = np.frombuffer(data, dtype=bool, count=k, offset=at + of_notes)
        vectors = np.frombuffer(data, dtype=self.dtype, offset=at + of_notes + k)
        return Rows(ids, vectors.reshape(k, self.width), observed), notes
