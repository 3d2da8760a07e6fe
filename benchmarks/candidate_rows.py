"""Steps of IKRL with rows of a batch's unique entities, against rows of all; they alternate.

python -m benchmarks.candidate_rows --graph graphs/fb15k-237
"""

from __future__ import annotations

import argparse
import statistics
import time
from pathlib import Path
from unittest.mock import patch

import torch

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.runs.assembly import build_program, initial_scorer
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.features import needed_modalities, random_features
from mmkgc_cli.scoring import load_scorer, scores
from mmkgc_cli.training.loop import StepProgram

WIDTH, WARM_UP = 768, 2
UNIQUE = scores._unique_candidates
WAYS = {"unique": UNIQUE, "all": lambda scorer, candidates: (None, candidates)}


def program(graph: Graph, batch: int, freeze: bool) -> StepProgram:
    settings = [
        "training.threads=1",
        f"training.batch_size={batch}",
        f"model.freeze_features={str(freeze).lower()}",
    ]
    config = resolve("ikrl", load_scorer("ikrl").Config, overrides=settings)
    features = random_features(needed_modalities(config), len(graph.entities), WIDTH)
    scorer = initial_scorer(config, graph, torch.device("cpu"), features)
    made = build_program(config, scorer, torch.from_numpy(graph.train).long())
    made.start_epoch()
    return made


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    graph = load_graph(arguments.graph)
    for batch in (128, 256, 400):
        for freeze in (False, True):
            programs = {way: program(graph, batch, freeze) for way in WAYS}
            times: dict[str, list[float]] = {way: [] for way in WAYS}
            for index in range(WARM_UP + arguments.steps):
                for way, of in programs.items():
                    with patch.object(scores, "_unique_candidates", WAYS[way]):
                        start = time.process_time()
                        of.step(index)
                        times[way].append(1e3 * (time.process_time() - start))
            unique, everyone = (statistics.median(times[way][WARM_UP:]) for way in WAYS)
            print(
                f"batch {batch}, {'frozen' if freeze else 'trained'}: {unique:.1f} ms of CPU with "
                f"rows of unique ids, {everyone:.1f} with all, ratio {everyone / unique:.2f}"
            )


if __name__ == "__main__":
    main()
