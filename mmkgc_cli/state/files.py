"""The file layer: every durable write of runs, stores, checkpoints, traces and batches.

The functions pass through to the system. Tests replace `disk` by a simulated disk, which loses what
was not flushed at a power cut and returns errors (``tests/simulation``).
"""

from __future__ import annotations

import contextlib
import errno
import os
from pathlib import Path
from typing import IO, Any

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None

# Errors of systems and file systems that cannot open or flush folders.
_CANNOT_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES, errno.EPERM, errno.EISDIR, errno.EBADF)


class Disk:
    """The operations that change files and folders; each raises `OSError` when it fails."""

    def open(self, path: Path, mode: str, buffering: int = -1) -> IO[bytes]:
        """Opens a file for writing; `mode` is a binary mode of the built-in `open`."""
        return path.open(mode, buffering)

    def sync(self, file: IO[bytes]) -> None:
        """Flushes the data and the size of a file to the disk, not its name."""
        file.flush()
        os.fsync(file.fileno())

    def sync_folder(self, folder: Path) -> None:
        """Flushes the names in a folder to the disk, if the system can."""
        try:
            descriptor = os.open(folder, os.O_RDONLY)
            try:
                os.fsync(descriptor)
            finally:
                os.close(descriptor)
        except OSError as error:
            if error.errno not in _CANNOT_SYNC:
                raise

    def replace(self, source: Path, target: Path) -> None:
        """Renames a file, and replaces `target`."""
        source.replace(target)

    def unlink(self, path: Path) -> None:
        """Removes a file."""
        path.unlink()

    def make_folder(self, path: Path) -> None:
        """Creates one folder."""
        path.mkdir()

    def remove_folder(self, path: Path) -> None:
        """Removes an empty folder."""
        path.rmdir()


disk = Disk()


def open_file(path: Path, mode: str, buffering: int = -1) -> IO[bytes]:
    """Opens a file for writing, see `Disk.open`."""
    return disk.open(path, mode, buffering)


def sync(file: IO[bytes]) -> None:
    """Flushes the data of a file to the disk; after an error the data may be lost."""
    disk.sync(file)


def sync_folder(folder: Path) -> None:
    """Flushes the names in a folder to the disk."""
    disk.sync_folder(folder)


def replace(source: Path, target: Path) -> None:
    """Renames a file durably."""
    disk.replace(source, target)
    disk.sync_folder(target.parent)


def unlink(path: Path, *, missing_ok: bool = False) -> None:
    """Removes a file; `sync_folder` makes that durable."""
    try:
        disk.unlink(path)
    except FileNotFoundError:
        if not missing_ok:
            raise


def make_folders(path: Path) -> None:
    """Creates a folder and its parents durably; existing ones stay."""
    if path.is_dir():
        return
    if path.parent != path:
        make_folders(path.parent)
    try:
        disk.make_folder(path)
    except FileExistsError:  # another process was faster, or it is a file
        if not path.is_dir():
            raise
    disk.sync_folder(path.parent)


def remove_empty_folder(path: Path) -> None:
    """Removes a folder if it is empty."""
    with contextlib.suppress(OSError):
        disk.remove_folder(path)


def lock(file: IO[bytes]) -> bool:
    """Takes the lock on an open file; False if another process holds it, or without such locks."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        return False
    return True


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on `path`; holds a shared lock for a moment."""
    if fcntl is None:
        return False
    try:
        # O_NONBLOCK: opening a named pipe would wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    except OSError:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return True
    except OSError:
        return False
    finally:
        os.close(descriptor)
    return False
