"""Atomic writes: a file has either its old or its new contents.

Every file of this package is written by `atomic_file`: under a temporary name in the same folder,
flushed to the disk, then renamed.
"""

from __future__ import annotations

import contextlib
import errno
import fnmatch
import glob
import io
import json
import os
import platform
import re
import secrets
import shutil
import stat
from collections.abc import Iterator
from pathlib import Path
from typing import IO, Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.state import files, interrupts
from mmkgc_cli.state.parsing import parse_json
from mmkgc_cli.state.regular import open_regular

_HOST = re.sub(r"[^A-Za-z0-9]", "_", platform.node())

# Temporary files that this process writes.
_open_files: set[Path] = set()

_ELSEWHERE = "write to another folder"
_PERMISSIONS = f"change the permissions, or {_ELSEWHERE}"
# Reason and fix by error number.
_REASONS = {
    errno.ENOSPC: ("the disk is full", f"free some space, or {_ELSEWHERE}"),
    errno.EDQUOT: ("the disk quota is used up", f"free some space, or {_ELSEWHERE}"),
    errno.EROFS: ("the file system is read-only", _ELSEWHERE),
    errno.EACCES: ("permission denied", _PERMISSIONS),
    errno.EPERM: ("permission denied", _PERMISSIONS),
    errno.EFBIG: (
        "the file is larger than this file system or process may write",
        f"raise the limit (ulimit -f), or {_ELSEWHERE}",
    ),
}


@contextlib.contextmanager
def storage_errors(path: Path) -> Iterator[None]:
    """Turns an `OSError` on writing `path` into a `DataError`."""
    try:
        yield
    except OSError as error:
        unknown = (error.strerror or str(error), f"check the disk, or {_ELSEWHERE}")
        reason, fix = _REASONS.get(error.errno or 0, unknown)
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            with contextlib.suppress(OSError):
                free = shutil.disk_usage(_existing_parent(path)).free
                reason += f" ({free / 2**20:.1f} MiB free)"
        raise DataError(f"{path}: cannot be written: {reason}", fix=fix) from error


def _existing_parent(path: Path) -> Path:
    return next(p for p in (path, *path.absolute().parents) if p.exists())


def make_folder(path: Path) -> None:
    """Creates a folder and its parents.

    Raises:
        DataError: when it cannot be created, or is a file.
    """
    if path.exists() and not path.is_dir():
        raise DataError(f"{path}: is a file, expected a folder", fix="give the path of a folder")
    with storage_errors(path):
        files.make_folders(path)


@contextlib.contextmanager
def atomic_file(path: Path) -> Iterator[IO[bytes]]:
    """Opens a temporary file that is renamed to `path` when the block ends without an error.

    The file gets the permissions of the old one. If `path` is a link, the file that it points to is
    replaced.

    Raises:
        DataError: when the storage fails, or `path` is a folder, a device or a pipe; `path` then
            keeps its old contents.
    """
    target, old = _target(path)
    make_folder(target.parent)
    sweep(target.parent, glob.escape(target.name))
    name = f".{target.name}.{_HOST}-{os.getpid()}-{_token()}.tmp"
    temporary = target.with_name(name)
    _open_files.add(temporary)
    try:
        with storage_errors(path):
            with files.open_file(temporary, "x+b") as file:  # never follows a link
                files.lock(file)  # else another container may take it for an abandoned one
                if old is not None:
                    _take_over(file, old)
                yield file
                files.sync(file)
            files.replace(temporary, target)
    finally:
        with contextlib.suppress(OSError):
            files.unlink(temporary, missing_ok=True)
        _open_files.discard(temporary)


def _target(path: Path) -> tuple[Path, os.stat_result | None]:
    """The file that is written for `path`, without links, and the status of an old one.

    Raises:
        DataError: when it is no regular file, or the links form a loop.
    """
    with storage_errors(path):
        target = Path(os.path.realpath(path)) if path.is_symlink() else path
        try:
            old = target.stat()
        except (FileNotFoundError, NotADirectoryError):
            return target, None
    if not stat.S_ISREG(old.st_mode):
        kind = "a folder" if stat.S_ISDIR(old.st_mode) else "a device, a pipe or a socket"
        raise DataError(f"{path}: is {kind}, expected a file", fix="give the path of a file")
    return target, old


def _token() -> str:
    """Makes the name of a temporary file unpredictable."""
    return secrets.token_hex(4)


def _take_over(file: IO[bytes], old: os.stat_result) -> None:
    """Gives a new file the permissions of the old one and, where permitted, its owner."""
    if os.name != "posix":
        return
    new = os.fstat(file.fileno())
    if (new.st_uid, new.st_gid) != (old.st_uid, old.st_gid):
        with contextlib.suppress(OSError):
            os.fchown(file.fileno(), old.st_uid, old.st_gid)
    os.fchmod(file.fileno(), stat.S_IMODE(old.st_mode))


def remove_open_files() -> None:
    """Removes the temporary files of this process, which is about to end."""
    for temporary in list(_open_files):
        with contextlib.suppress(OSError):
            files.unlink(temporary, missing_ok=True)


interrupts.cleanups.append(remove_open_files)


def sweep(folder: Path, names: str) -> None:
    """Removes temporary files of killed processes, for files that match `names`."""
    for temporary, name in abandoned(folder):
        if fnmatch.fnmatchcase(name, names):
            with contextlib.suppress(OSError):
                files.unlink(temporary)


def abandoned(folder: Path) -> Iterator[tuple[Path, str]]:
    """Temporary files of killed processes of this machine, with the names of their targets."""
    for path in folder.glob(f".*.{_HOST}-*.tmp"):
        name, _, process = path.name.removesuffix(".tmp").rpartition(f".{_HOST}-")
        match = re.fullmatch("([0-9]+)(-[0-9a-f]{8})?", process)
        # Containers may share a folder and the name of a machine, but not process ids.
        if match and not _alive(int(match[1])) and not files.is_locked(path):
            yield path, name[1:]


def _alive(pid: int) -> bool:
    if os.name != "posix":  # on Windows, os.kill would end the process
        return True
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except (OSError, OverflowError):
        return True
    return True


def write_bytes(path: Path, data: bytes | memoryview) -> None:
    """Writes `data` to `path` atomically."""
    with atomic_file(path) as file:
        file.write(data)


def write_text(path: Path, text: str) -> None:
    """Writes `text` to `path` as UTF-8, atomically."""
    write_bytes(path, text.encode())


def write_json(path: Path, value: Any) -> None:
    """Writes `value` as indented JSON, atomically; rejects NaN and infinity."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def read_text(path: Path) -> str:
    """Reads UTF-8 text, with or without a byte order mark.

    Raises:
        DataError: when it is missing, unreadable or not UTF-8.
    """
    # A shell gives a pipe for <(command); elsewhere, a pipe would be waited for in vain.
    is_given_by_shell = path.is_relative_to("/dev/fd") or path.is_relative_to("/proc")
    try:
        file = path.open("rb") if is_given_by_shell else open_regular(path, "check the path")
        with io.TextIOWrapper(file, encoding="utf-8-sig") as text:
            return text.read()
    except OSError as error:
        fix = "check the path and its permissions"
        raise DataError(f"{path}: cannot be read: {error.strerror}", fix=fix) from error
    except UnicodeDecodeError:
        fix = "convert it to UTF-8, for instance with iconv"
        raise DataError(f"{path}: not a UTF-8 text", fix=fix) from None


def read_json(path: Path) -> Any:
    """Reads a JSON file.

    Raises:
        DataError: as `read_text`; also when it is not JSON, with the line.
    """
    return parse_json(read_text(path), str(path))
