"""Writes a store batch by batch, slowly enough to be killed."""

from __future__ import annotations

import sys
import time
from pathlib import Path

import numpy as np

from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.resumable_writer import ResumableWriter
from tests.features.small import vectors

N, WIDTH, BATCH = 120, 16, 6


def extract(path: Path, stop: int = N, pause: float = 0.0) -> None:
    """Appends the missing rows, as an extraction does, and writes the store."""
    values = vectors(N, WIDTH)
    with ResumableWriter(path, Metadata("image"), WIDTH, {"inputs": "x"}) as part:
        for start in range(len(part.ids), stop, BATCH):
            rows = np.arange(start, min(start + BATCH, stop))
            part.append([f"e{i}" for i in rows], values[rows], rows % 5 > 0)
            time.sleep(pause)
        if stop == N:
            part.finish()


if __name__ == "__main__":
    extract(Path(sys.argv[1]), pause=0.002)
