"""Speed and memory of feature stores against plain numpy files.

    python -m benchmarks.features --rows 100000 --width 768

Measures reading in order, in another order and of some rows, and writing. Each speed is the best of
several runs with the file in the page cache, in GB of float32 per second, and relative to
`numpy.load` or `numpy.save` on the same values. These compute no checksum, and `numpy.save` does
not wait for the disk. Before that, a separate process imports and checks the file, and its time and
peak memory are printed. With --rows 1000000 (3 GB) nothing else is measured.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import numpy as np
import torch

from mmkgc_cli.features.alignment import RowCache, align
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.features.writing import FeatureBlock, write_store
from mmkgc_cli.kg.graph import Graph

PART = 4096


def best(action: Callable[[], object], runs: int) -> float:
    """Seconds of the fastest run."""
    times = []
    for _ in range(runs):
        start = time.perf_counter()
        action()
        times.append(time.perf_counter() - start)
    return min(times)


def graph_of(entities: list[str]) -> Graph:
    none = np.zeros((0, 3), dtype=np.int32)
    return Graph("benchmark", entities, ["r"], none, none, none)


def generate(path: Path, n: int, width: int) -> None:
    """Writes an .npy file of random numbers in blocks."""
    rng = np.random.default_rng(0)
    header = {"descr": "<f4", "fortran_order": False, "shape": (n, width)}
    with path.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for start in range(0, n, PART):
            file.write(rng.standard_normal((min(PART, n - start), width), dtype=np.float32).data)


def speeds(folder: Path, n: int, width: int, runs: int) -> None:
    plain, ids = folder / "x.npy", [f"entity {i}" for i in range(n)]
    size = 4 * n * width / 1e9
    values = np.load(plain)

    def blocks() -> Iterator[FeatureBlock]:
        for start in range(0, n, PART):
            part = values[start : start + PART]
            yield FeatureBlock(ids[start : start + PART], part, np.ones(len(part), dtype=bool))

    rng = np.random.default_rng(1)
    shuffled, some = rng.permutation(n), rng.integers(n, size=min(n, 2048))
    target = np.empty_like(values)
    reading = size / best(lambda: np.load(plain), runs)
    gathering = size / best(lambda: np.load(plain)[shuffled], runs)
    memory_map = best(lambda: np.load(plain, mmap_mode="r")[some], runs)
    writing = size / best(lambda: np.save(folder / "y.npy", values), runs)
    print(
        f"numpy: load {reading:.2f} GB/s, load with permuted rows {gathering:.2f}, save "
        f"{writing:.2f}, {len(some)} rows of a memory map {1e3 * memory_map:.1f} ms"
    )
    for dtype, compression in (("float32", None), ("float16", None), ("float16", "lzf")):
        path = folder / "s.h5"

        def write(path: Path = path, dtype: str = dtype, how: str | None = compression) -> None:
            write_store(path, Metadata("image"), blocks(), n=n, width=width, dtype=dtype,
                        compression=how)  # fmt: skip

        written = size / best(write, runs)
        with FeatureStore(path) as store:
            other = align(store, graph_of([ids[i] for i in shuffled]))

            def read_new(rows: np.ndarray | None = None, path: Path = path) -> None:
                with FeatureStore(path) as fresh:  # no block is verified yet
                    fresh.read(rows, target)

            first = size / best(read_new, runs)
            realigned = size / best(lambda rows=other.rows: read_new(rows), runs)  # type: ignore[misc]
            again = size / best(lambda s=store: s.read(out=target), runs)  # type: ignore[misc]
            cache = RowCache(other, max_bytes=1 << 28)
            entities = torch.from_numpy(some)
            cold = best(lambda c=cache, e=entities: c.take(e), 1)  # type: ignore[misc]
            warm = best(lambda c=cache, e=entities: c.take(e), runs)  # type: ignore[misc]
        name = f"{dtype} {compression or ''}".strip()
        print(
            f"{name}: read {first:.2f} GB/s ({first / reading:.2f} of numpy), "
            f"second read {again:.2f} ({again / reading:.2f}), "
            f"realigned {realigned:.2f} ({realigned / gathering:.2f}), "
            f"write {written:.2f} ({written / writing:.2f}); {len(some)} rows: "
            f"{1e3 * cold:.1f} ms, from the cache {1e3 * warm:.1f} ms",
            flush=True,
        )


def memory(folder: Path, n: int) -> None:
    ids = folder / "ids.txt"
    ids.write_text("".join(f"entity {i}\n" for i in range(n)))
    store = folder / "s.h5"
    steps = (
        ["import", folder / "x.npy", "--modality", "image", "--ids", ids, "--out", store,
         "--overwrite"],
        ["check", store],
    )  # fmt: skip
    for step in steps:
        start = time.perf_counter()
        command = [sys.executable, "-m", "mmkgc_cli", "features", *map(str, step)]
        process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        _, status, usage = os.wait4(process.pid, 0)
        if status:
            raise SystemExit(f"features {step[0]} failed")
        seconds, peak = time.perf_counter() - start, usage.ru_maxrss / 2**10
        print(f"features {step[0]}: {seconds:.1f} s, peak memory {peak:.0f} MiB", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--rows", type=int, default=100_000)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--folder", type=Path, help="scratch directory; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as scratch:
        folder = Path(scratch)
        generate(folder / "x.npy", options.rows, options.width)
        memory(folder, options.rows)
        if 4 * options.rows * options.width < 2e9:
            speeds(folder, options.rows, options.width, options.runs)


if __name__ == "__main__":
    main()
