"""Locks on files that go with the process, however it ends; on POSIX systems alone."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import IO

from mmkgc_cli.state.atomic import storage_errors


def try_lock(path: Path) -> IO[bytes] | None:
    """The lock, held as long as the file is open here, or by a process that inherited it.

    None while another process has it. Where the system has no such locks, everybody gets it.
    """
    with storage_errors(path):
        file = path.open("ab")
    if os.name != "posix":
        return file
    import fcntl

    with contextlib.suppress(OSError):
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        # Whoever cleaned up may have taken the file that was opened with it.
        if os.path.samestat(os.fstat(file.fileno()), path.stat()):
            return file
    file.close()
    return None


def is_locked(path: Path) -> bool:
    """Whether somebody holds the lock; False where the system has no such locks.

    To ask is to hold a shared lock for a moment: who wants the lock tries more than once.
    """
    if os.name != "posix":
        return False
    import fcntl

    try:
        # Not to wait where somebody put a pipe.
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
