"""Speed and peak memory of `mmkgc extract image`.

    python -m benchmarks.pictures --count 100000 --encoder colour-grid

Generates JPEGs, an index and a graph with one entity per picture, and runs `mmkgc extract image` in
a separate process. Its peak memory must stay below 1 GB for 100,000 pictures. --encoder also
accepts the directory of a vision model.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import numpy as np
from PIL import Image

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph

PER_FOLDER = 1000


def generate(folder: Path, count: int, side: int) -> None:
    """Writes JPEGs of blurred noise, 1,000 per directory, their index, and the graph."""
    rng = np.random.default_rng(0)
    with (folder / "index.tsv").open("w") as index:
        index.write("entity\tfile\n")
        for i in range(count):
            path = folder / f"{i // PER_FOLDER:04}" / f"{i}.jpg"
            path.parent.mkdir(exist_ok=True)
            small = Image.fromarray(rng.integers(0, 256, (6, 8, 3), dtype=np.uint8))
            small.resize((side, side * 3 // 4)).save(path, quality=80)
            index.write(f"entity {i}\t{path.relative_to(folder)}\n")
    none = np.zeros((0, 3), dtype=np.int32)
    names = [f"entity {i}" for i in range(count)]
    train = np.array([[0, 0, 1]], dtype=np.int32)
    write_graph(Graph("benchmark", names, ["r"], train, none, none), folder / "graph")


def measure(folder: Path, encoder: str, count: int) -> None:
    command = [
        sys.executable, "-m", "mmkgc_cli", "extract", "image", "--graph", str(folder / "graph"),
        "--input", str(folder / "index.tsv"), "--encoder", encoder, "--out", str(folder / "x.h5"),
    ]  # fmt: skip
    start = time.perf_counter()
    process = subprocess.Popen(command)
    _, status, usage = os.wait4(process.pid, 0)
    seconds = time.perf_counter() - start
    if status:
        raise SystemExit(f"mmkgc extract failed with exit code {os.waitstatus_to_exitcode(status)}")
    print(
        f"{count:,} pictures through {encoder}: {seconds:.0f} s in total, "
        f"{count / seconds:,.0f} per second; peak memory {usage.ru_maxrss / 1024:,.0f} MiB"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--count", type=int, default=100_000)
    parser.add_argument("--side", type=int, default=160, help="width of a picture in pixels")
    parser.add_argument("--encoder", default="colour-grid")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="mmkgc-") as folder:
        generate(Path(folder), arguments.count, arguments.side)
        measure(Path(folder), arguments.encoder, arguments.count)


if __name__ == "__main__":
    main()
