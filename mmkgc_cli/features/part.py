"""Rows on their way into a store: a file that grows, and that a killed writer can go on with."""

from __future__ import annotations

import json
import os
import struct
import zlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.about import About
from mmkgc_cli.features.layout import Floats, Mask
from mmkgc_cli.features.writing import Rows, check_format, write_store
from mmkgc_cli.state.atomic import make_folder, storage_errors

_MAGIC = b"mmkgc part 1\n"
_RECORD = struct.Struct("<QI")  # length and CRC-32 of what follows


class StorePart:
    """Appends rows to ``PATH.part`` and makes the store at PATH from them in the end.

    Each `append` is a record with a checksum. A writer that is killed leaves whole records, and at
    most one torn at the end, which goes when the next one begins; PATH is not touched before
    `finish`, which replaces it at once. One process writes at a time; who calls sees to that.
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
        """
        check_format(dtype, None)
        self.path = path
        self.part = path.with_name(path.name + ".part")
        self.width, self.dtype = width, dtype
        self._about = about
        self.ids: list[str] = []  # of the rows that are there, in order
        header = {"about": about.as_object(), "width": width, "dtype": dtype, "job": dict(job)}
        self._header = json.dumps(header, ensure_ascii=False, sort_keys=True).encode() + b"\n"
        make_folder(path.parent)
        with storage_errors(self.part):
            if resume and self.part.is_file():
                self._go_on()
            else:
                self.part.write_bytes(_MAGIC + self._header)
            self._file = self.part.open("ab")

    def __enter__(self) -> StorePart:
        return self

    def __exit__(self, *_: object) -> None:
        self._file.close()

    def _go_on(self) -> None:
        start = _MAGIC + self._header
        with self.part.open("r+b") as file:
            found = file.read(len(start))
            if start.startswith(found):  # killed before the header was whole
                file.seek(0)
                file.write(start)
            elif found != start:
                raise DataError(
                    f"{self.part}: left by another job (other inputs, encoder or settings); "
                    "remove it to begin anew"
                )
            end = len(start)
            for rows, behind in self._records():
                self.ids.extend(rows.ids)
                end = behind
            file.truncate(end)

    def append(self, ids: Sequence[str], vectors: Floats, observed: Mask) -> None:
        """Adds rows ``[k, width]``; they are safe from a kill of the process when this returns.

        Raises:
            DataError: when they cannot be stored (`Rows.checked`), or the storage refuses.
        """
        rows = Rows(ids, vectors, observed).checked(self.path, self.width, self.dtype)
        names = "\n".join(rows.ids).encode()
        data = b"".join(
            [
                struct.pack("<QQ", len(rows.ids), len(names)), names,
                rows.observed.tobytes(), rows.vectors.tobytes(),
            ]
        )  # fmt: skip
        with storage_errors(self.part):
            self._file.write(_RECORD.pack(len(data), zlib.crc32(data)) + data)
            self._file.flush()
        self.ids.extend(rows.ids)

    def finish(self, compression: str | None = None) -> Path:
        """Makes the store from all rows and removes the part.

        Raises:
            DataError: when an id came twice, there is no row, or the storage refuses.
        """
        with storage_errors(self.part):
            self._file.flush()
        blocks = (rows for rows, _ in self._records())
        write_store(
            self.path, self._about, blocks, n=len(self.ids), width=self.width, dtype=self.dtype,
            compression=compression,
        )  # fmt: skip
        self._file.close()
        with storage_errors(self.part):
            self.part.unlink()
        return self.path

    def _records(self) -> Iterator[tuple[Rows, int]]:
        """The whole records, each with the place behind it."""
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
                yield self._parsed(data), file.tell()

    def _parsed(self, data: bytes) -> Rows:
        k, length = struct.unpack_from("<QQ", data)
        at = 16 + length
        ids = data[16:at].decode().split("\n") if k else []
        observed = np.frombuffer(data, dtype=bool, count=k, offset=at)
        vectors = np.frombuffer(data, dtype=self.dtype, offset=at + k)
        return Rows(ids, vectors.reshape(k, self.width), observed)
