"""Time and memory of `mmkgc prepare` on a graph of the size of Wikidata5M, and of PyKEEN.

    python -m benchmarks.preparation --triples 20e6 --entities 4.6e6

The generated file has triples of names (Q12 P3 Q4, 822 relations) with degrees that follow a power
law. Each run is a separate process, and its peak memory is measured. mmkgc reads, splits, hashes,
audits and writes. PyKEEN reads and splits a graph of a tenth of the size, which mmkgc also
prepares.
"""

from __future__ import annotations

import argparse
import json
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np

RELATIONS = 822
PART = 500_000
SPLIT = "0.9,0.05,0.05"

PEER = """
import sys, time
from pykeen.triples import TriplesFactory
start = time.perf_counter()
factory = TriplesFactory.from_path(sys.argv[1])
train, valid, test = factory.split([0.9, 0.05, 0.05], random_state=0)
print(time.perf_counter() - start, train.num_triples, factory.num_entities)
"""


def generate(path: Path, n_triples: int, n_entities: int, seed: int = 0) -> None:
    """Writes random triples; few entities occur in most of them, as in Zipf's law."""
    rng = np.random.default_rng(seed)
    names = rng.permutation(4 * n_entities)[:n_entities]

    def sample(count: int, size: int, skew: float) -> np.ndarray:
        """Samples ids with power-law frequencies; a larger `skew` is steeper."""
        return np.minimum((size * rng.random(count) ** skew).astype(np.int64), size - 1)

    with path.open("wb") as file:
        for start in range(0, n_triples, PART):
            count = min(PART, n_triples - start)
            # The first heads enumerate all entities, so every entity occurs.
            heads = np.arange(start, start + count)
            heads = np.where(heads < n_entities, heads, sample(count, n_entities, 2.0))
            tails, relations = sample(count, n_entities, 4.0), sample(count, RELATIONS, 3.0)
            columns = names[heads].tolist(), relations.tolist(), names[tails].tolist()
            rows = zip(*columns, strict=True)
            file.write("".join(f"Q{h}\tP{r}\tQ{t}\n" for h, r, t in rows).encode())


def run(command: list[str]) -> tuple[float, float, str]:
    """Seconds, peak MiB and output of a process."""
    start = time.perf_counter()
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    output = process.stdout.read()
    _, status, usage = wait4(process.pid)
    if status:
        raise SystemExit(f"{' '.join(command)}: failed")
    return time.perf_counter() - start, usage.ru_maxrss / 1024, output


def wait4(pid: int) -> tuple[int, int, resource.struct_rusage]:
    import os

    return os.wait4(pid, 0)


def ours(source: Path, out: Path) -> dict[str, Any]:
    arguments = ["prepare", "generated", "--source", source, "--format", "hrt", "--split", SPLIT,
                 "--out", out, "--overwrite", "--json"]  # fmt: skip
    seconds, peak, output = run([sys.executable, "-m", "mmkgc_cli", *map(str, arguments)])
    report = json.loads(output)
    triples = sum(report[split] for split in ("train", "valid", "test"))
    return {
        "seconds": round(seconds, 1),
        "peak_mib": round(peak),
        "distinct_triples": triples,
        "entities": report["entities"],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--triples", type=float, default=20e6)
    parser.add_argument("--entities", type=float, default=4.6e6)
    parser.add_argument(
        "--smaller", type=float, default=10, help="size of the graph divided by that for PyKEEN"
    )
    parser.add_argument("--folder", type=Path, help="scratch directory; default: a temporary one")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(dir=options.folder) as temporary:
        folder = Path(temporary)
        source = folder / "whole.tsv"
        generate(source, int(options.triples), int(options.entities))
        whole = ours(source, folder / "whole")
        whole["file_mb"] = round(source.stat().st_size / 1e6)
        whole["triples_per_second"] = round(options.triples / whole["seconds"])
        show(whole=whole)
        source.unlink()
        smaller = int(options.triples / options.smaller), int(options.entities / options.smaller)
        generate(source, *smaller)
        small = ours(source, folder / "small")
        show(smaller=small)
        seconds, peak, output = run([sys.executable, "-c", PEER, str(source)])
        inner, triples, entities = output.split()
        show(
            pykeen_smaller={
                "seconds": round(seconds, 1),
                "without_imports": round(float(inner), 1),
                "peak_mib": round(peak),
                "train_triples": int(triples),
                "entities": int(entities),
            },
            ratio=round(seconds / small["seconds"], 1),
        )


def show(**result: Any) -> None:
    print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main()
