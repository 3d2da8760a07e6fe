"""Epochs of RotatE on FB15K-237 with `mmkgc train`, against the sLCWA loop of PyKEEN.

    python -m benchmarks.training --graph graphs/fb15k-237

1,024 positives per step with 32 negatives each, 128 complex dimensions, the self-adversarial loss,
Adam, two threads. `mmkgc train` runs in a separate process and writes checkpoints and a trace; its
ops are `filtered_negatives`, `rotate_loss` and `table_adam`. The share of the loop is the time that
`mmkgc profile` attributes to none of them.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.state.trace import read_trace

SETTINGS = ["model.dim=128", "training.threads=2"]


def ours(graph: Path, epochs: int) -> list[float]:
    """Seconds of each epoch, from the trace."""
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        settings = [part for setting in SETTINGS for part in ("--set", setting)]
        subprocess.run(
            [sys.executable, "-m", "mmkgc_cli", "train", "rotate", "--graph", str(graph),
             "--run", str(run), "--epochs", str(epochs), "--set", f"validation.every={epochs}",
             *settings], check=True, capture_output=True,
        )  # fmt: skip
        events = read_trace(run / "trace.jsonl")
    return [event["epoch_seconds"] for event in events if event["event"] == "epoch"]


def run_profile(graph: Path) -> dict[str, Any]:
    """The report of `mmkgc profile`."""
    settings = [part for setting in SETTINGS for part in ("--set", setting)]
    done = subprocess.run(
        [sys.executable, "-m", "mmkgc_cli", "profile", "rotate", "--graph", str(graph), "--json",
         "--steps", "200", *settings], check=True, capture_output=True, text=True,
    )  # fmt: skip
    report: dict[str, Any] = json.loads(done.stdout)
    return report


def pykeen_epoch(graph: Graph) -> float:
    """Seconds of one epoch of PyKEEN's stochastic local closed world training loop."""
    import numpy as np
    from pykeen.losses import NSSALoss
    from pykeen.models import RotatE
    from pykeen.sampling import BasicNegativeSampler
    from pykeen.training import SLCWATrainingLoop
    from pykeen.triples import CoreTriplesFactory

    factory = CoreTriplesFactory(
        torch.from_numpy(graph.train.astype(np.int64)),
        num_entities=len(graph.entities),
        num_relations=len(graph.relations),
    )
    model = RotatE(
        triples_factory=factory,
        embedding_dim=128,
        loss=NSSALoss(margin=9, adversarial_temperature=1.0),
        random_seed=0,
    )
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-3, fused=True)
    loop = SLCWATrainingLoop(
        model=model,
        triples_factory=factory,
        optimizer=optimizer,
        negative_sampler=BasicNegativeSampler,
        negative_sampler_kwargs={"num_negs_per_pos": 32, "filtered": True},
    )
    start = time.perf_counter()
    loop.train(
        triples_factory=factory, num_epochs=1, batch_size=1024, use_tqdm=False,
        use_tqdm_batch=False, num_workers=0,
    )  # fmt: skip
    return time.perf_counter() - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--without-peer", action="store_true")
    options = parser.parse_args()
    torch.set_num_threads(2)
    before = ours(options.graph, options.epochs)
    result: dict[str, Any] = {"ours_seconds": [round(s, 2) for s in before]}
    profile = run_profile(options.graph)
    explained = sum(part["ms"] for part in profile["parts"])
    result["loop_share"] = round(1 - explained / profile["step_ms"], 3)
    result["profile"] = profile
    if not options.without_peer:
        result["pykeen_seconds"] = round(pykeen_epoch(load_graph(options.graph)), 1)
        after = ours(options.graph, options.epochs)
        result["ours_seconds_after"] = [round(s, 2) for s in after]
        median = statistics.median([*before, *after])
        result["ratio"] = round(result["pykeen_seconds"] / median, 1)
    print(json.dumps(result, indent=1))


if __name__ == "__main__":
    main()
