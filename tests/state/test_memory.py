from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest

from mmkgc_cli.state.memory import settled_objects

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

# Where a process begins, and where it stays until it happens to free a large block.
ctypes.CDLL(None).mallopt(-3, 128 << 10)
print(faults())
assert keep_freed_memory()
print(faults())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked")
def test_memory_that_was_freed_comes_back_without_new_pages() -> None:
    done = subprocess.run(
        [sys.executable, "-c", FAULTS], capture_output=True, text=True, check=True
    )
    before, after = map(int, done.stdout.split())
    assert after < 1000 < before


def test_settled_objects_are_collected_again_afterwards() -> None:
    before = gc.get_freeze_count()
    with settled_objects():
        assert gc.get_freeze_count() > before
    assert gc.get_freeze_count() == 0
