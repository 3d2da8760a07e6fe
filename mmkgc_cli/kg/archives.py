"""Packed sources: tar and zip archives, and single compressed files."""

from __future__ import annotations

import bz2
import contextlib
import gzip
import lzma
import shutil
import tarfile
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from pathlib import Path, PurePosixPath, PureWindowsPath
from typing import IO, Any

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
)


def is_packed(name: str) -> bool:
    """Whether a file of this name is an archive or compressed."""
    return name.casefold().endswith((*_TAR, *_ZIP, *_SINGLE))


@contextlib.contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Unpacks an archive to a temporary folder; yields other files and folders unchanged.

    An archive of one folder yields that folder, an archive of one file that file. Links, devices
    and names outside the archive are refused before anything is written. Errors raised inside the
    block name the archive instead of the temporary folder.

    Raises:
        DataError: for an archive that is damaged, unsafe, or larger than the free disk space.
    """
    if not path.is_file() or not is_packed(path.name):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mmkgc-") as temporary:
        folder = Path(temporary)
        root = folder
        try:
            _unpack(path, folder)
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


def _unpack(path: Path, folder: Path) -> None:
    name = path.name.casefold()
    budget = Budget(path, folder)
    try:
        if name.endswith(_TAR):
            with tarfile.open(path) as tar:
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


def _unpack_tar(path: Path, tar: tarfile.TarFile, folder: Path, budget: Budget) -> None:
    members = tar.getmembers()
    targets = _targets(path, [member.name for member in members], folder)
    for member in members:
        if not member.isfile() and not member.isdir():
            file_type = "a link" if member.issym() or member.islnk() else "a special file"
            raise DataError(
                f"{path}: {member.name!r} is {file_type}, expected a regular file",
                fix="unpack the archive yourself and pass the folder to --source",
            )
    budget.require(sum(member.size for member in members if member.isfile()))
    for member, target in zip(members, targets, strict=True):
        if target is not None and member.isfile():
            source = tar.extractfile(member)
            assert source is not None
            with source:
                budget.copy(source, target)


def _unpack_zip(path: Path, archive: zipfile.ZipFile, folder: Path, budget: Budget) -> None:
    members = archive.infolist()
    targets = _targets(path, [member.filename for member in members], folder)
    for member in members:
        # The upper half of the external attributes contains the Unix file mode, or zeros.
        file_type = (member.external_attr >> 16) & 0o170000
        if file_type not in (0, 0o100000, 0o040000):
            raise DataError(
                f"{path}: {member.filename!r} is a link or a special file, expected a regular file",
                fix="unpack the archive yourself and pass the folder to --source",
            )
        if member.flag_bits & 1:
            raise DataError(
                f"{path}: {member.filename!r} is encrypted",
                fix="unpack the archive yourself and pass the folder to --source",
            )
    budget.require(sum(member.file_size for member in members))
    for member, target in zip(members, targets, strict=True):
        if target is not None and not member.is_dir():
            with archive.open(member) as source:
                budget.copy(source, target)


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
        DataError: for names that are absolute, contain "..", or occur twice.
    """
    targets: list[Path | None] = []
    seen: set[str] = set()
    for name in names:
        if leads_out(name):
            raise DataError(
                f"{path}: {name!r} leads out of the archive",
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
        target = folder / pure
        if target.as_posix().casefold() in seen:  # some file systems ignore case
            raise DataError(
                f"{path}: {name!r} is in the archive twice",
                fix="unpack the archive yourself and pass the folder to --source",
            )
        seen.add(target.as_posix().casefold())
        targets.append(target)
    return targets


class Budget:
    """The number of bytes that may still be unpacked, from the free disk space."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._left = max(0, shutil.disk_usage(folder).free - _RESERVE)

    def require(self, size: int) -> None:
        """Checks that `size` more bytes fit on the disk.

        Raises:
            DataError: when they do not.
        """
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
            with storage_errors(target):
                file.write(chunk)
