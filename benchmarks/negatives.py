"""Filtered negatives of a batch (`filtered_negatives`), native against reference.

    python -m benchmarks.negatives --graph graphs/fb15k-237

1,024 train triples with 32 and with 128 Bernoulli negatives each, up to four rounds of
filtering, sorted by entity, two threads.
"""

from __future__ import annotations

import argparse
import json
import statistics
from collections.abc import Callable
from pathlib import Path

import torch

from benchmarks.scoring import compete
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.ops import SideChoice, _native
from mmkgc_cli.sampling.contract import SamplerConfig, SamplingTask
from mmkgc_cli.sampling.samplers.filtered import FilteredSampler
from mmkgc_cli.scoring import Scorer, ScorerConfig

BATCH = 1024


def drawing(
    sampler: FilteredSampler, positives: torch.Tensor, scorer: Scorer, native: bool
) -> Callable[[], None]:
    def draw() -> None:
        has_kernel = _native.has_kernel
        if not native:
            _native.has_kernel = lambda op, device_type: False
        try:
            sampler.draw(positives, scorer)
        finally:
            _native.has_kernel = has_kernel

    return draw


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=20)
    options = parser.parse_args()
    torch.set_num_threads(2)
    graph = load_graph(options.graph)
    triples = torch.from_numpy(graph.train).long()
    sizes = len(graph.entities), len(graph.relations)
    scorer = Scorer(ScorerConfig(), *sizes, torch.Generator())
    result = {}
    for n in (32, 128):
        task = SamplingTask(triples, *sizes, n, "bernoulli", SideChoice.per_negative, 0)
        sampler = FilteredSampler(SamplerConfig(), task, scorer)
        positives = triples[:BATCH]
        contest = {
            "ours": drawing(sampler, positives, scorer, True),
            "reference": drawing(sampler, positives, scorer, False),
        }
        times = compete(contest, options.rounds)
        median = {name: round(statistics.median(of), 2) for name, of in times.items()}
        result[f"{BATCH} x {n}"] = {
            **median,
            "ratio": round(median["reference"] / median["ours"], 1),
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
