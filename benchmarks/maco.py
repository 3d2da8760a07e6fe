"""A training step of MACO against one that computes the whole graph twice per step.

    python -m benchmarks.maco --graph graphs/fb15k-237

Sizes of the paper: 128 entities per step, an R-GCN 128 -> 256 -> 768, hidden width 256, random
vectors of 768 columns for 90 % of the entities. *whole graph* computes all states with our ops and
selects the rows of the batch, as the released code does; *reference* does the same without ops.
Contestants alternate. The time of 500 epochs is extrapolated from steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
from pathlib import Path

import torch
from torch import Tensor, nn

from benchmarks.rgcn import on_reference
from benchmarks.scoring import compete
from mmkgc_cli.completion.maco.model import Maco
from mmkgc_cli.completion.maco.program import MacoProgram
from mmkgc_cli.completion.maco.settings import PAPER
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.state.memory import keep_freed_memory

EPOCHS = 500


class WholeGraph(nn.Module):
    """Computes the states of all entities and returns the rows of the batch."""

    def __init__(self, structure: nn.Module) -> None:
        super().__init__()
        self.structure = structure

    def forward(self, rows: Tensor | None = None) -> Tensor:
        states: Tensor = self.structure(None)
        return states if rows is None else states[rows]


def program(graph: Graph, width: int, whole: bool) -> MacoProgram:
    entities = len(graph.entities)
    model = Maco(torch.from_numpy(graph.train).long(), entities, len(graph.relations), width, PAPER)
    if whole:
        model.structure = WholeGraph(model.structure)
    rng = torch.Generator().manual_seed(0)
    vectors = torch.randn(entities, width, generator=rng)
    result = MacoProgram(model, vectors, torch.rand(entities, generator=rng) < 0.9)
    result.start_epoch()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--width", type=int, default=768)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--threads", type=int, default=2)
    options = parser.parse_args()
    torch.set_num_threads(options.threads)
    keep_freed_memory()
    graph = load_graph(options.graph)
    ours, whole = (program(graph, options.width, variant) for variant in (False, True))
    count = [0]

    def step(contestant: MacoProgram) -> None:
        count[0] += 1
        contestant.step(
            count[0] % (contestant.steps_per_epoch - 1)
        )  # the last batch may be smaller

    times = compete(
        {
            "ours": lambda: step(ours),
            "whole graph": lambda: step(whole),
            "whole graph, reference": on_reference(lambda: step(whole)),
        },
        options.rounds,
    )
    steps = {name: statistics.median(values) for name, values in times.items()}
    hours = {name: ms * ours.steps_per_epoch * EPOCHS / 3.6e6 for name, ms in steps.items()}
    print(
        json.dumps(
            {
                "graph": graph.name, "width": options.width, "threads": options.threads,
                "ms_per_step": {name: round(ms, 1) for name, ms in steps.items()},
                "fastest_ms": {name: round(min(values), 1) for name, values in times.items()},
                "times_ours": {name: round(ms / steps["ours"], 1) for name, ms in steps.items()},
                f"hours_for_{EPOCHS}_epochs_projected": {
                    name: round(value, 2) for name, value in hours.items()
                },
            },
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
