from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest

from mmkgc_cli.state.memory import frozen_gc

FAULTS = """
import ctypes, resource, torch
from mmkgc_cli.state.memory import keep_freed_memory

def faults():
    before = 0
    for round_ in range(13):
        if round_ == 3:
            before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
        blocks = [torch.ones(1 << 20) for _ in range(8)]
        del blocks
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

# The default threshold, until the process frees a large block.
ctypes.CDLL(None).mallopt(-3, 128 << 10)
print(faults())
assert keep_freed_memory()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="needs glibc")
def test_freed_memory_is_reused_without_page_faults() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after < 1000 < before


def test_objects_are_frozen_only_within_the_context() -> None:
    before = gc.get_freeze_count()
    with frozen_gc():
        assert gc.get_freeze_count() > before
    assert gc.get_freeze_count() == 0
