"""Locks on files that the system releases when the process ends, however it ends.

Windows uses `filelock`. POSIX systems call `fcntl.flock` here, since three things that runs and
batches need are impossible with `filelock`: a lock that child processes inherit and keep when the
parent is killed (`filelock` unlocks the file for all of them and closes it after a fork), its file
descriptor, and `is_locked` with a shared lock, so that several observers do not mistake each other
for the owner.
"""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import Any, Self

from mmkgc_cli.state import files
from mmkgc_cli.state.atomic import storage_errors

fcntl: Any
try:
    import fcntl
except ImportError:  # Windows
    fcntl = None


class Lock:
    """A lock that is held until it is closed here and in every process that inherited it."""

    def __init__(self, resource: Any) -> None:
        """Takes a locked file, or a `FileLock` that was acquired."""
        self._resource = resource

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def fileno(self) -> int:
        """The descriptor for child processes; POSIX only."""
        return int(self._resource.fileno())

    def close(self) -> None:
        """Gives up this process's hold on the lock."""
        if fcntl is None:
            self._resource.release()
        else:
            self._resource.close()


def try_lock(path: Path) -> Lock | None:
    """Takes the lock on `path`, which is created; None while another process holds it.

    Raises:
        DataError: when the file cannot be created.
    """
    if fcntl is None:
        return _try_file_lock(path)
    with storage_errors(path):
        file = files.open_file(path, "ab")
    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # The file may have been removed between opening and locking it.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return Lock(file)
    file.close()
    return None


def _try_file_lock(path: Path) -> Lock | None:
    from filelock import FileLock, Timeout

    lock = FileLock(path)
    with storage_errors(path):
        try:
            lock.acquire(blocking=False)
        except Timeout:  # an OSError
            return None
    return Lock(lock)


def is_locked(path: Path) -> bool:
    """Whether a process holds the lock on `path`; creates no file.

    Holds a shared lock for a moment, so `try_lock` may fail meanwhile: its callers try again.
    """
    if fcntl is None:
        lock = _try_file_lock(path) if path.is_file() else None
        if lock:
            lock.close()
        return lock is None and path.is_file()
    return files.is_locked(path)
