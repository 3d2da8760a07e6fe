"""CPU time of IKRL steps that compute the rows of a batch, against steps that compute all rows.

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
from mmkgc_cli.runs.features import made_up, needed
from mmkgc_cli.scoring import load_scorer, scores
from mmkgc_cli.training.loop import StepProgram

WIDTH, WARM_UP = 768, 2
MET = scores._entities_met
VARIANTS = {"batch": MET, "all": lambda scorer, ids: (None, ids)}


def program(graph: Graph, batch: int, freeze: bool) -> StepProgram:
    settings = [
        "training.threads=1",
        f"training.batch_size={batch}",
        f"model.freeze_features={str(freeze).lower()}",
    ]
    config = resolve("ikrl", load_scorer("ikrl").Config, {}, "", {}, settings)
    features = made_up(needed(config), len(graph.entities), WIDTH)
    scorer = initial_scorer(config, graph, torch.device("cpu"), features)
    step_program = build_program(config, scorer, torch.from_numpy(graph.train).long())
    step_program.start_epoch()
    return step_program


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--steps", type=int, default=10)
    arguments = parser.parse_args()
    graph = load_graph(arguments.graph)
    for batch in (128, 256, 400):
        for freeze in (False, True):
            programs = {name: program(graph, batch, freeze) for name in VARIANTS}
            times: dict[str, list[float]] = {name: [] for name in VARIANTS}
            for index in range(WARM_UP + arguments.steps):
                for name, step_program in programs.items():
                    with patch.object(scores, "_entities_met", VARIANTS[name]):
                        start = time.process_time()
                        step_program.step(index)
                        times[name].append(1e3 * (time.process_time() - start))
            some, every = (statistics.median(times[name][WARM_UP:]) for name in VARIANTS)
            print(
                f"batch {batch}, {'frozen' if freeze else 'trained'}: {some:.1f} ms of CPU "
                f"with the rows of the batch, {every:.1f} with all rows, ratio {every / some:.2f}"
            )


if __name__ == "__main__":
    main()
