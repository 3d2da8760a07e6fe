"""Reads files in an archive without extracting them to the file system."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import tarfile
import tempfile
import threading
import zipfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import Skip
from mmkgc_cli.kg.archives import DAMAGED, Budget, leads_out

LARGEST = 1 << 30  # maximum bytes of a member of a zip, which is read into memory
# By the first bytes of a file.
_DECOMPRESSORS: dict[bytes, Callable[..., Any]] = {
    b"\x1f\x8b": gzip.open,
    b"BZh": bz2.open,
    b"\xfd7zXZ": lzma.open,
}
_HEAD = 262  # bytes to read from a file: the magic number of a tar ends there


@dataclass(frozen=True, eq=False)
class Members:
    """The regular files of an archive by name, and the refused members."""

    sizes: Mapping[str, int]
    refused: Sequence[tuple[str, str]]  # name, reason
    open: Callable[[str], IO[bytes]]  # seekable; raises Skip


def is_archive(path: Path) -> bool:
    """Whether the first bytes of a file are those of a zip, a tar or a compressed file."""
    with path.open("rb") as file:
        head = file.read(_HEAD)
        if head.startswith((b"PK\x03\x04", b"PK\x05\x06")):
            return True
        return head[257:262] == b"ustar" or any(head.startswith(magic) for magic in _DECOMPRESSORS)


def list_members(path: Path) -> Members:
    """Lists the members of an archive.

    A compressed tar has no random access and is decompressed once into an unnamed temporary file.
    If several members have the same name, the last one counts, as in extraction. Paths that lead
    out of the archive, links, devices and encrypted members are refused.

    Raises:
        DataError: the archive is damaged, or decompresses to more than the free disk space.
    """
    try:
        if zipfile.is_zipfile(path):
            return _zip_members(path)
        return _Tar(path).list_members()
    except DAMAGED as error:
        raise DataError(
            f"{path}: damaged, truncated or not an archive: {_reason(error)}",
            fix="download or create the archive again",
        ) from None


def _zip_members(path: Path) -> Members:
    archive = zipfile.ZipFile(path)
    infos: dict[str, zipfile.ZipInfo] = {}
    refused = []
    for info in archive.infolist():
        # The upper 16 bits of the external attributes are the Unix mode, or zero.
        file_type = (info.external_attr >> 16) & 0o170000
        if leads_out(info.filename):
            refused.append((info.filename, "leads out of the archive"))
        elif file_type not in (0, 0o100000, 0o040000):
            refused.append((info.filename, "a link or a special file"))
        elif info.flag_bits & 1:
            refused.append((info.filename, "encrypted"))
        elif not info.is_dir():
            infos[info.filename] = info

    def read(name: str) -> IO[bytes]:
        if infos[name].file_size > LARGEST:
            raise Skip(
                f"larger than {LARGEST >> 20:,} MiB in the archive; extract the archive first"
            )
        try:
            # zipfile reads at most `file_size` bytes; if there are more, the checksum differs.
            with archive.open(infos[name]) as file:
                return io.BytesIO(file.read())
        except DAMAGED as error:
            raise Skip(f"damaged in the archive: {_reason(error)}") from None

    return Members({name: info.file_size for name, info in infos.items()}, refused, read)


def _open_uncompressed(path: Path) -> IO[bytes]:
    """Opens a tar for random access, decompressing it if necessary."""
    raw = path.open("rb")
    head = raw.read(_HEAD)
    raw.seek(0)
    opener = next((o for magic, o in _DECOMPRESSORS.items() if head.startswith(magic)), None)
    if opener is None:
        return raw
    folder = Path(tempfile.gettempdir())
    plain = tempfile.TemporaryFile(prefix="mmkgc-")  # noqa: SIM115 - closed by _Tar
    try:
        with raw, opener(raw) as source:
            Budget(path, folder).pour(source, plain, folder)
    except BaseException:
        plain.close()
        raise
    plain.seek(0)
    return plain


class _Tar:
    """A tar; members are read at their offsets in the file or its decompressed copy."""

    def __init__(self, path: Path) -> None:
        self._raw = _open_uncompressed(path)
        self._lock = threading.Lock()
        self._ranges: dict[str, tuple[int, int]] = {}  # offset and size
        self._refused: list[tuple[str, str]] = []
        with tarfile.open(fileobj=self._raw, mode="r:") as tar:
            for info in tar:
                tar.members = []  # type: ignore[attr-defined]  # saves a kilobyte per member
                self._add(info)
        end = self._raw.seek(0, io.SEEK_END)
        if truncated := [
            name for name, (offset, size) in self._ranges.items() if offset + size > end
        ]:
            raise DataError(
                f"{path}: truncated within {truncated[0]!r}",
                fix="download or create the archive again",
            )

    def __del__(self) -> None:
        if raw := getattr(self, "_raw", None):
            raw.close()

    def _add(self, info: tarfile.TarInfo) -> None:
        if leads_out(info.name):
            self._refused.append((info.name, "leads out of the archive"))
        elif info.isfile() and not info.issparse():
            self._ranges[info.name] = (info.offset_data, info.size)
        elif not info.isdir():
            self._refused.append((info.name, "a link or a special file"))

    def list_members(self) -> Members:
        sizes = {name: size for name, (_, size) in self._ranges.items()}
        return Members(sizes, self._refused, self.open)

    def open(self, name: str) -> IO[bytes]:
        return io.BufferedReader(_Slice(self._raw, self._lock, *self._ranges[name]), 1 << 16)


class _Slice(io.RawIOBase):
    """A range of a file that is shared between threads."""

    def __init__(self, file: IO[bytes], lock: threading.Lock, start: int, length: int) -> None:
        self._file, self._lock = file, lock
        self._start, self._length = start, length
        self._position = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._length}[whence]
        if base + offset < 0:
            raise OSError("seek before the start")
        self._position = base + offset
        return self._position

    def readinto(self, buffer: Any) -> int:
        count = min(len(buffer), max(0, self._length - self._position))
        with self._lock:
            self._file.seek(self._start + self._position)
            data = self._file.read(count)
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)


def _reason(error: BaseException) -> str:
    return " ".join(str(error).split()) or type(error).__name__
