from __future__ import annotations

import gc
import platform
import subprocess
import sys

import pytest

from mmkgc_cli.state.memory import settled_objects

FAULTS = """
import resource, sys, torch
from mmkgc_cli.state.memory import keep_freed_memory
if sys.argv[1] == "keep":
    assert keep_freed_memory()

def round_():
    blocks = [torch.ones(1 << 20) for _ in range(8)]

for _ in range(3):
    round_()
before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
for _ in range(10):
    round_()
print(resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is asked")
def test_memory_that_was_freed_comes_back_without_new_pages() -> None:
    faults = {
        how: int(
            subprocess.run(
                [sys.executable, "-c", FAULTS, how], capture_output=True, text=True, check=True
            ).stdout
        )
        for how in ("keep", "as is")
    }
    assert faults["keep"] < 1000 < faults["as is"]


def test_settled_objects_are_collected_again_afterwards() -> None:
    before = gc.get_freeze_count()
    with settled_objects():
        assert gc.get_freeze_count() > before
    assert gc.get_freeze_count() == 0
