"""What keeps memory management out of a training step, and how much memory there was."""

from __future__ import annotations

import contextlib
import ctypes
import gc
import platform
import sys
from collections.abc import Iterator

import torch

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


def peak_mib(device: torch.device) -> float:
    """The most memory that this process has held so far: on the GPU, or in all."""
    if device.type == "cuda":
        return round(torch.cuda.max_memory_allocated(device) / 2**20, 1)
    try:
        import resource
    except ImportError:  # no such numbers on this system
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)
