"""Opening of files that users name: regular files only, so that no pipe or device is waited for."""

from __future__ import annotations

import os
import stat
from io import FileIO
from pathlib import Path

from mmkgc_cli.errors import DataError

_FLAGS = (
    os.O_RDONLY
    | getattr(os, "O_NONBLOCK", 0)
    | getattr(os, "O_CLOEXEC", 0)
    | getattr(os, "O_NOCTTY", 0)
    | getattr(os, "O_BINARY", 0)
)
_KINDS = {
    stat.S_IFIFO: "a pipe",
    stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFDIR: "a folder",
}


def open_regular(path: Path, missing: str = "check the path of the file") -> FileIO:
    """Opens a regular file for reading, without a buffer; links to one are followed.

    Args:
        path: the file.
        missing: what to do if there is no such file.

    Raises:
        DataError: the file is missing, unreadable, a folder, a pipe or a device.
    """
    try:
        _require_regular(path, path.stat())  # not even opened, which may have effects
        descriptor = os.open(path, _FLAGS)
        try:
            _require_regular(path, os.fstat(descriptor))
            return FileIO(descriptor)
        except BaseException:
            os.close(descriptor)
            raise
    except FileNotFoundError:
        raise DataError(f"{path}: no such file", fix=missing) from None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}", fix="check the permissions of the file"
        ) from error
    except ValueError as error:  # a null character in the path
        raise DataError(f"{path!r}: {error}", fix="check the path of the file") from None


def _require_regular(path: Path, status: os.stat_result) -> None:
    kind = stat.S_IFMT(status.st_mode)
    if kind != stat.S_IFREG:
        raise DataError(
            f"{path}: is {_KINDS.get(kind, 'no regular file')}, expected a file",
            fix="pass a file in the folder"
            if kind == stat.S_IFDIR
            else "copy its contents into a file and pass that",
        )
