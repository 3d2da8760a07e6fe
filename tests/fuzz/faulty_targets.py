"""A target with known faults, by which the runner is tested."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

LINE_OF_ERROR = 28


def examples(name: str) -> list[bytes]:
    return [b""]


def generate(name: str, seed: int, number: int) -> bytes:
    return bytes([number])


def check(name: str, data: bytes, folder: Path) -> bool:
    """Input 2 crashes, input 5 hangs, input 8 raises."""
    if data == b"\2":
        os.kill(os.getpid(), signal.SIGSEGV)
    if data == b"\5":
        time.sleep(60)
    if data == b"\b":
        raise KeyError
    return True
