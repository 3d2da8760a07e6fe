"""A record of HDF5 files that need no inspection: inspected before, or written on this machine.

It is a text file of digests in the user's cache folder, appended to and bounded. Without it (or if
it cannot be written) files are inspected by every command, which is slower.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
from pathlib import Path

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.state.atomic import write_bytes
from mmkgc_cli.state.home import cache_folder

FILE_NAME = "inspected.txt"
_VERSION = 1  # increased when an inspection becomes stricter
_LINE = 65  # bytes of a digest and a line end
_MOST_LINES = 20_000

_known: set[str] = set()  # by this process


def contents_key(kind: str, sha256: str) -> str:
    """The key of a file by its contents; `sha256` must have been computed, not read."""
    return _digest(kind, "contents", sha256)


def file_key(kind: str, descriptor: int, checksum: str) -> str:
    """The key of a file that is too large to be hashed whenever it is opened.

    It covers inode, size and the times of the last change. The checksum alone could be that of
    another file: who makes a file can write any checksum into it. The time of the last status
    change cannot be set by a program.
    """
    status = os.fstat(descriptor)
    values = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns)
    return _digest(kind, "file", *map(str, values), checksum)


def _digest(*parts: str) -> str:
    return hashlib.sha256(
        "\n".join(["mmkgc inspected", str(_VERSION), *parts]).encode()
    ).hexdigest()


def is_inspected(key: str) -> bool:
    """Whether a file needs no inspection."""
    if key in _known:
        return True
    with contextlib.suppress(OSError, MmkgcError):
        if f"{key}\n".encode() in _path().read_bytes():
            _known.add(key)
            return True
    return False


def record(key: str) -> None:
    """Records that a file was inspected, or written by this process."""
    _known.add(key)
    with contextlib.suppress(OSError, MmkgcError):
        path = _path()
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("ab", buffering=0) as file:
            file.write(f"{key}\n".encode())
            is_long = file.tell() > _MOST_LINES * _LINE
        if is_long:
            lines = path.read_bytes().splitlines(keepends=True)
            write_bytes(path, b"".join(lines[-_MOST_LINES // 2 :]))


def record_written(kind: str, path: Path, checksum: str) -> None:
    """Records a file that this process has just written at `path`."""
    with contextlib.suppress(OSError), path.open("rb") as file:
        record(file_key(kind, file.fileno(), checksum))


def _path() -> Path:
    return cache_folder() / FILE_NAME
