"""Limits on the size of vectors that a file declares, checked before anything is written."""

from __future__ import annotations

import shutil
from pathlib import Path

from mmkgc_cli.errors import DataError
from mmkgc_cli.text import byte_text, counted

# A file of any other format may declare far more values than it contains: chunks that were never
# written are zeros, zeros compress a thousandfold, and a tensor may repeat one value. Real vectors
# compress little.
COMPLETE = (".npy", ".safetensors", ".tsv")
_LEAST, _RATIO = 1 << 30, 64


def most_bytes(path: Path, max_bytes: int | None) -> int | None:
    """The most bytes of vectors that a file may declare; None for no limit.

    By default 1 GiB, or 64 times the size of the file if that is more, for the formats that may
    declare more than they contain.
    """
    if max_bytes is not None:
        return max_bytes
    if path.suffix.lower() in COMPLETE:
        return None
    return max(_LEAST, _RATIO * path.stat().st_size)


def check_declared(path: Path, n: int, width: int, item_bytes: int, most: int | None) -> None:
    """Compares the vectors that a file declares with a limit.

    Raises:
        DataError: they are larger, or there are none.
    """
    if not n or not width:
        raise DataError(
            f"{path}: {counted(n, 'vector')} of width {width:,}: nothing to store",
            fix="give at least one vector",
        )
    check_bytes(path, f"{counted(n, 'vector')} of width {width:,}", n * width * item_bytes, most)


def check_bytes(path: Path, what: str, size: int, most: int | None) -> None:
    """Compares the size of anything that a file declares with a limit.

    Raises:
        DataError: it is larger.
    """
    if most is not None and size > most:
        raise DataError(
            f"{path}: declares {what}, {byte_text(size)}, which is more than {byte_text(most)}",
            fix="check where the file comes from, and if the size is right, add "
            f"--max-bytes {size}",
        )


def check_room(path: Path, size: int) -> None:
    """Checks that the disk of `path` has room for `size` bytes.

    Raises:
        DataError: it has not.
    """
    folder = next(p for p in path.absolute().parents if p.exists())
    free = shutil.disk_usage(folder).free
    if size > free:
        raise DataError(
            f"{path}: needs {byte_text(size)}, but only {byte_text(free)} are free",
            fix="free some space, or write to another folder with --out",
        )
