"""Packed sources: tar and zip archives, and single compressed files."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import shutil
import tarfile
import tempfile
import unicodedata
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any, Self

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.state.atomic import storage_errors

_TAR = (".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tbz2", ".tar.xz", ".txz")
_ZIP = (".zip",)
_SINGLE: dict[str, Callable[..., Any]] = {".gz": gzip.open, ".bz2": bz2.open, ".xz": lzma.open}
_RESERVE = 64 << 20  # bytes to leave free on the disk
_CHUNK = 1 << 20
# Exceptions that the libraries raise for damaged or truncated archives.
DAMAGED = (
    tarfile.TarError,
    zipfile.BadZipFile,
    zlib.error,
    lzma.LZMAError,
    gzip.BadGzipFile,
    EOFError,
    OSError,
    ValueError,
    NotImplementedError,
    RecursionError,
)
# Limits that no archive of a graph reaches. Without them, small archives take hours or all memory.
_MEMBERS = 100_000
_DEPTH = 64  # folders in a name
_NAME = 255  # bytes, the limit of most file systems
_HEADER = 1 << 20  # bytes of an extended header of a tar, which tarfile reads into memory
_EXTENDED = (
    tarfile.GNUTYPE_LONGNAME,
    tarfile.GNUTYPE_LONGLINK,
    tarfile.XHDTYPE,
    tarfile.XGLTYPE,
    tarfile.SOLARIS_XHDTYPE,
)
_BY_HAND = "unpack the archive yourself and pass the folder to --source"


def is_packed(name: str) -> bool:
    """Whether a file of this name is an archive or compressed."""
    return name.casefold().endswith((*_TAR, *_ZIP, *_SINGLE))


@contextlib.contextmanager
def unpacked(path: Path, max_bytes: int | None = None) -> Iterator[Path]:
    """Unpacks an archive to a temporary folder; yields other files and folders unchanged.

    An archive of one folder yields that folder, an archive of one file that file. Links, devices
    and names outside the archive are refused before anything is written. Archives in the archive
    stay packed. Errors raised inside the block name the archive instead of the temporary folder.

    Args:
        path: an archive, or another file or folder.
        max_bytes: limit for the content; None for the free disk space only.

    Raises:
        DataError: for an archive that is damaged, unsafe, or larger than the limit or the free disk
            space, or that has more than 100,000 members.
    """
    if not path.is_file() or not is_packed(path.name):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mmkgc-") as temporary:
        folder = Path(temporary)
        root = folder
        try:
            _unpack(path, folder, max_bytes)
            while len(entries := list(root.iterdir())) == 1:
                root = entries[0]
                if root.is_file():
                    break
            if not entries:
                raise DataError(
                    f"{path}: the archive contains no files",
                    fix="choose an archive that contains the triples",
                )
            yield root
        except MmkgcError as error:
            message = str(error).replace(str(root), str(path)).replace(str(folder), str(path))
            if message == str(error):
                raise
            raise type(error).joined([message]) from error


def _unpack(path: Path, folder: Path, max_bytes: int | None) -> None:
    name = path.name.casefold()
    budget = Budget(path, folder, max_bytes)
    try:
        if name.endswith(_TAR):
            with tarfile.open(path, tarinfo=_Member) as tar:
                _unpack_tar(path, tar, folder, budget)
        elif name.endswith(_ZIP):
            with zipfile.ZipFile(path) as archive:
                _unpack_zip(path, archive, folder, budget)
        else:
            suffix = next(s for s in _SINGLE if name.endswith(s))
            with _SINGLE[suffix](path, "rb") as source:
                budget.copy(source, folder / path.name[: -len(suffix)])
    except DAMAGED as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise DataError(
            f"{path}: damaged, truncated or not an archive: {reason}",
            fix="download or copy the file again",
        ) from None


class _Member(tarfile.TarInfo):
    """A member of a tar, without the headers that take memory or time beyond all bounds."""

    @classmethod
    def frombuf(cls, buf: bytes | bytearray, encoding: str, errors: str) -> Self:
        member = super().frombuf(buf, encoding, errors)
        if member.size < 0:
            raise tarfile.ReadError("a member of negative size")
        if member.type in _EXTENDED and member.size > _HEADER:
            raise tarfile.ReadError(f"an extended header of {member.size:,} bytes")
        return member

    # tarfile searches all of the content for a map of the parts of a sparse file.
    def _proc_gnusparse_10(self, *_: object) -> None:
        raise tarfile.ReadError("a sparse file")


def _unpack_tar(path: Path, tar: tarfile.TarFile, folder: Path, budget: Budget) -> None:
    members: list[tarfile.TarInfo] = []
    size = 0
    # The next header of a compressed archive is found by unpacking what is before it.
    for member in tar:
        members.append(member)
        _require_count(path, len(members))
        if not member.isfile() and not member.isdir():
            file_type = "a link" if member.issym() or member.islnk() else "a special file"
            raise DataError(
                f"{path}: {_shown(member.name)} is {file_type}, expected a regular file",
                fix=_BY_HAND,
            )
        if member.size < 0:
            raise tarfile.ReadError("a member of negative size")
        size += member.size
        budget.require(size)
    targets = _targets(path, [member.name for member in members], folder)
    for member, target in zip(members, targets, strict=True):
        if target is not None and member.isfile():
            source = tar.extractfile(member)
            assert source is not None
            with source:
                budget.copy(source, target)


def _unpack_zip(path: Path, archive: zipfile.ZipFile, folder: Path, budget: Budget) -> None:
    members = archive.infolist()
    _require_count(path, len(members))
    targets = _targets(path, [member.filename for member in members], folder)
    for member in members:
        # The upper half of the external attributes contains the Unix file mode, or zeros.
        file_type = (member.external_attr >> 16) & 0o170000
        if file_type not in (0, 0o100000, 0o040000):
            raise DataError(
                f"{path}: {_shown(member.filename)} is a link or a special file, "
                "expected a regular file",
                fix=_BY_HAND,
            )
        if member.flag_bits & 1:
            raise DataError(f"{path}: {_shown(member.filename)} is encrypted", fix=_BY_HAND)
        # zipfile unpacks other methods in memory, however large the content is.
        if member.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise DataError(
                f"{path}: {_shown(member.filename)} is compressed by another method than deflate",
                fix=_BY_HAND,
            )
    budget.require(sum(member.file_size for member in members))
    for member, target in zip(members, targets, strict=True):
        if target is not None and not member.is_dir():
            with archive.open(member) as source:
                budget.copy(source, target)


def _require_count(path: Path, n: int) -> None:
    if n > _MEMBERS:
        raise DataError(f"{path}: more than {_MEMBERS:,} files and folders", fix=_BY_HAND)


def _shown(name: str) -> str:
    """A name in an archive, as it appears in messages."""
    return repr(name if len(name) <= 80 else f"{name[:80]}…")


def leads_out(name: str) -> bool:
    """Whether a name in an archive is absolute or contains "..", on any operating system."""
    pure, windows = PurePosixPath(name), PureWindowsPath(name)
    parts = {*pure.parts, *windows.parts}
    return bool(
        pure.is_absolute() or windows.drive or windows.root or ".." in parts or "\0" in name
    )


def _targets(path: Path, names: list[str], folder: Path) -> list[Path | None]:
    """The target path of each member; None for the top folder and for files that macOS adds.

    Raises:
        DataError: for names that are absolute, contain "..", occur twice, or are too long or deep.
    """
    targets: list[Path | None] = []
    seen: set[str] = set()
    for name in names:
        if leads_out(name):
            raise DataError(
                f"{path}: {_shown(name)} leads out of the archive",
                fix="do not unpack it; get the files from a source that you trust",
            )
        pure = PurePosixPath(name)
        if (
            not pure.parts
            or "__MACOSX" in pure.parts
            or pure.name.startswith("._")
            or pure.name == ".DS_Store"
        ):
            targets.append(None)
            continue
        if len(pure.parts) > _DEPTH:
            raise DataError(f"{path}: {_shown(name)} has more than {_DEPTH} folders", fix=_BY_HAND)
        if max(len(part.encode(errors="replace")) for part in pure.parts) > _NAME:
            raise DataError(f"{path}: {_shown(name)} is longer than {_NAME} bytes", fix=_BY_HAND)
        target = folder / pure
        # Some file systems ignore case or the composition of characters.
        key = unicodedata.normalize("NFC", pure.as_posix()).casefold()
        if key in seen:
            raise DataError(f"{path}: {_shown(name)} is in the archive twice", fix=_BY_HAND)
        seen.add(key)
        targets.append(target)
    return targets


class Budget:
    """The number of bytes that may still be unpacked, from a limit and the free disk space."""

    def __init__(self, path: Path, folder: Path, max_bytes: int | None = None) -> None:
        self._path = path
        self._left = max(0, shutil.disk_usage(folder).free - _RESERVE)
        self._limit = max_bytes
        self._unpacked = 0

    def require(self, size: int) -> None:
        """Checks that `size` more bytes are within the limit and fit on the disk.

        Raises:
            DataError: when they do not.
        """
        if self._limit is not None and self._unpacked + size > self._limit:
            raise DataError(
                f"{self._path}: unpacks to more than the limit of {self._limit:,} bytes",
                fix="check where the archive comes from, and if the size is right, pass a larger "
                "--max-bytes",
            )
        if size > self._left:
            raise DataError(
                f"{self._path}: unpacks to {size >> 20:,} MiB or more, but the temporary folder "
                f"{tempfile.gettempdir()} has room for {self._left >> 20:,} MiB",
                fix="set TMPDIR to a folder with more free space",
            )

    def copy(self, source: IO[bytes], target: Path) -> None:
        """Writes a member to `target`, counting the actual bytes, not the announced size."""
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("wb")
        with file:
            self.pour(source, file, target)

    def pour(self, source: IO[bytes], file: IO[bytes], target: Path) -> None:
        """Writes all of `source` to an open file, called `target` in messages."""
        while chunk := source.read(_CHUNK):
            self.require(len(chunk))
            self._left -= len(chunk)
            self._unpacked += len(chunk)
            with storage_errors(target):
                file.write(chunk)
