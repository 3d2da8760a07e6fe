"""Sources that come packed: tar and zip archives, and single compressed files."""

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
_ROOM = 64 << 20  # bytes to leave free on the disk
_PIECE = 1 << 20
# What the libraries raise for archives that are damaged or cut off.
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
    """The folder or file in an archive, in a temporary place; other files and folders as they are.

    An archive of one folder gives that folder, an archive of one file that file. Links, devices and
    names that lead out of the archive are refused before anything is written. Errors raised while
    reading the result name the archive.

    Raises:
        DataError: for an archive that is damaged, unsafe, or larger than the free disk.
    """
    if not path.is_file() or not is_packed(path.name):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="mmkgc-") as temporary:
        folder = Path(temporary)
        root = folder
        try:
            _unpack(path, folder)
            while len(inside := list(root.iterdir())) == 1:
                root = inside[0]
                if root.is_file():
                    break
            if not inside:
                raise DataError(f"{path}: holds no files")
            yield root
        except MmkgcError as error:
            message = str(error).replace(str(root), str(path)).replace(str(folder), str(path))
            if message == str(error):
                raise
            raise type(error)(message) from error


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
        raise DataError(f"{path}: damaged, cut off or not an archive: {reason}") from None


def _unpack_tar(path: Path, tar: tarfile.TarFile, folder: Path, budget: Budget) -> None:
    members = tar.getmembers()
    targets = _targets(path, [member.name for member in members], folder)
    for member in members:
        if not member.isfile() and not member.isdir():
            kind = "a link" if member.issym() or member.islnk() else "a special file"
            raise DataError(f"{path}: {member.name!r} is {kind}; only plain files are taken")
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
        # The upper half of the external attributes holds a Unix mode, if anything.
        kind = (member.external_attr >> 16) & 0o170000
        if kind not in (0, 0o100000, 0o040000):
            raise DataError(
                f"{path}: {member.filename!r} is a link or a special file; only plain files are "
                "taken"
            )
        if member.flag_bits & 1:
            raise DataError(f"{path}: {member.filename!r} is encrypted; unpack it yourself")
    budget.require(sum(member.file_size for member in members))
    for member, target in zip(members, targets, strict=True):
        if target is not None and not member.is_dir():
            with archive.open(member) as source:
                budget.copy(source, target)


def leads_out(name: str) -> bool:
    """Whether a name in an archive is absolute or leads upwards, on any system."""
    pure, windows = PurePosixPath(name), PureWindowsPath(name)
    parts = {*pure.parts, *windows.parts}
    return bool(
        pure.is_absolute() or windows.drive or windows.root or ".." in parts or "\0" in name
    )


def _targets(path: Path, names: list[str], folder: Path) -> list[Path | None]:
    """Where each member goes; None for the top folder itself and for what a Mac adds.

    Raises:
        DataError: for names that are absolute, lead upwards, or stand there twice.
    """
    targets: list[Path | None] = []
    seen: set[str] = set()
    for name in names:
        if leads_out(name):
            raise DataError(f"{path}: {name!r} leads out of the archive; refused")
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
        if target.as_posix().casefold() in seen:  # some file systems know no case
            raise DataError(f"{path}: {name!r} is in the archive twice")
        seen.add(target.as_posix().casefold())
        targets.append(target)
    return targets


class Budget:
    """How much may be unpacked: what the disk has room for."""

    def __init__(self, path: Path, folder: Path) -> None:
        self._path = path
        self._left = max(0, shutil.disk_usage(folder).free - _ROOM)

    def require(self, size: int) -> None:
        """Refuses what there is no room for.

        Raises:
            DataError: naming the archive, and how to make room.
        """
        if size > self._left:
            raise DataError(
                f"{self._path}: unpacks to {size >> 20:,} MiB or more, but the temporary folder "
                f"{tempfile.gettempdir()} has room for {self._left >> 20:,} MiB; set TMPDIR to a "
                "place with more"
            )

    def copy(self, source: IO[bytes], target: Path) -> None:
        """Writes a member, however much it claimed to be."""
        with storage_errors(target):
            target.parent.mkdir(parents=True, exist_ok=True)
            file = target.open("wb")
        with file:
            self.pour(source, file, target)

    def pour(self, source: IO[bytes], file: IO[bytes], target: Path) -> None:
        """Writes all of `source` to an open file, called `target` in messages."""
        while piece := source.read(_PIECE):
            self.require(len(piece))
            self._left -= len(piece)
            with storage_errors(target):
                file.write(piece)
