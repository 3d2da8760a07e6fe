"""What keeps memory management out of a training step."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
from collections.abc import Iterator

# malloc.h of glibc.
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
_LARGEST, _KEPT = 1 << 25, 1 << 30  # glibc takes no larger first one


def keep_freed_memory() -> bool:
    """Lets the allocator keep up to a gigabyte that was freed, for whoever asks next.

    A training step asks for the same few megabytes again and again. glibc hands such blocks back
    to the system and gets them as new pages, each with a fault and a clearing: up to a quarter of
    a step. Memory is then given back when the process ends. Does nothing without glibc.
    """
    if platform.libc_ver()[0] != "glibc":
        return False
    library = ctypes.CDLL(None)
    return bool(
        library.mallopt(_M_MMAP_THRESHOLD, _LARGEST) and library.mallopt(_M_TRIM_THRESHOLD, _KEPT)
    )


@contextlib.contextmanager
def settled_objects() -> Iterator[None]:
    """Spares the objects that are there from garbage collection while the context lasts.

    Importing torch leaves a million of them; each full collection would walk them all, a twentieth
    of a training step on average.
    """
    gc.collect()
    gc.freeze()
    try:
        yield
    finally:
        gc.unfreeze()
