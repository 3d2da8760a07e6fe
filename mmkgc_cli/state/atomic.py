"""Files that are either the old one or the new one, whatever happens in between.

Every file this package writes goes through `atomic_file`: a temporary name in the same folder,
flushed to the disk, then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import json
import os
import platform
import re
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mmkgc_cli.errors import DataError

_HOST = re.sub(r"[^A-Za-z0-9]", "_", platform.node())

_REASONS = {
    errno.ENOSPC: "the disk is full",
    errno.EDQUOT: "the disk quota is used up",
    errno.EROFS: "the file system is read-only",
    errno.EACCES: "permission denied",
    errno.EPERM: "permission denied",
    errno.EFBIG: "the file is larger than this file system or process may write",
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an `OSError` while writing `path` into one line for the user."""
    try:
        yield
    except OSError as error:
        reason = _REASONS.get(error.errno or 0, error.strerror or str(error))
        advice = ""
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            with contextlib.suppress(OSError):
                free = shutil.disk_usage(_existing_parent(path)).free
                advice = f" ({free / 2**20:.1f} MiB free); free some room or write elsewhere"
        raise DataError(f"{path}: cannot be written: {reason}{advice}") from error


def _existing_parent(path: Path) -> Path:
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def make_folder(path: Path) -> None:
    """Creates a folder and its parents.

    Raises:
        DataError: when it cannot be created, or a file of that name is there.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"{path}: is a file, expected a folder")
    with storage_errors(path):
        path.mkdir(parents=True, exist_ok=True)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a binary file that takes the name `path` only when the block ends well.

    Raises:
        DataError: when the storage refuses; `path` is then as it was before.
    """
    make_folder(path.parent)
    sweep(path.parent, glob.escape(path.name))
    temporary = path.with_name(f".{path.name}.{_HOST}-{os.getpid()}.tmp")
    try:
        with storage_errors(path):
            with temporary.open("w+b") as file:
                yield file
                file.flush()
                os.fsync(file.fileno())
            temporary.replace(path)
            _sync_folder(path.parent)
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)


def sweep(folder: Path, names: str) -> None:
    """Removes what killed processes of this machine left of writes to files that match `names`."""
    for old, name in abandoned(folder):
        if fnmatch.fnmatchcase(name, names):
            with contextlib.suppress(OSError):
                old.unlink()


def abandoned(folder: Path) -> Iterator[tuple[Path, str]]:
    """Temporary files that dead processes of this machine left, with the names they were for."""
    for path in folder.glob(f".*.{_HOST}-*.tmp"):
        name, _, pid = path.name.removesuffix(".tmp").rpartition(f".{_HOST}-")
        if re.fullmatch("[0-9]+", pid) and not _alive(int(pid)):
            yield path, name[1:]


def _alive(pid: int) -> bool:
    if os.name != "posix":  # elsewhere this would not ask, but send
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def _sync_folder(folder: Path) -> None:
    """Makes a rename durable where the system lets folders be synced."""
    with contextlib.suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Writes `data` to `path` atomically."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; NaN and infinity are refused."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path) -> str:
    """Reads a UTF-8 text, with or without a BOM.

    Raises:
        DataError: when it is missing, unreadable or not UTF-8.
    """
    try:
        return path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise DataError(f"{path}: no such file") from None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
    except UnicodeDecodeError:
        raise DataError(f"{path}: not a UTF-8 text") from None


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: as `read_text`, or when it is not JSON, with the line.
    """
    try:
        return json.loads(read_text(path))
    except json.JSONDecodeError as error:
        raise DataError(f"{path}:{error.lineno}: not valid JSON: {error.msg}") from None
