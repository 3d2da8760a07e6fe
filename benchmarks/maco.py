"""A training step of MACO, ours and as its formulas read: the whole graph in torch, twice a step.

    python -m benchmarks.maco --graph graphs/fb15k-237

The paper's sizes: 128 entities a step, an R-GCN 128 -> 256 -> 768, hidden 256, random vectors of
768 columns for nine tenths of the entities. *whole graph* computes all states with our kernels and
takes the rows of the batch, as the released code does; *reference* does that with torch alone.
Contestants take turns. An epoch and 500 of them are projected from the steps.
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
    """States of all entities, of which a batch takes its rows."""

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
    found = MacoProgram(model, vectors, torch.rand(entities, generator=rng) < 0.9)
    found.start_epoch()
    return found


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
    ours, whole = (program(graph, options.width, way) for way in (False, True))
    count = [0]

    def step(of: MacoProgram) -> None:
        count[0] += 1
        of.step(count[0] % (of.steps_per_epoch - 1))  # the last batch may be smaller

    times = compete(
        {
            "ours": lambda: step(ours),
            "whole graph": lambda: step(whole),
            "whole graph, reference": on_reference(lambda: step(whole)),
        },
        options.rounds,
    )
    steps = {name: statistics.median(of) for name, of in times.items()}
    hours = {name: ms * ours.steps_per_epoch * EPOCHS / 3.6e6 for name, ms in steps.items()}
    print(
        json.dumps(
            {
                "graph": graph.name, "width": options.width, "threads": options.threads,
                "ms_per_step": {name: round(ms, 1) for name, ms in steps.items()},
                "fastest_ms": {name: round(min(of), 1) for name, of in times.items()},
                "times_ours": {name: round(ms / steps["ours"], 1) for name, ms in steps.items()},
                f"hours_for_{EPOCHS}_epochs_projected": {
                    name: round(of, 2) for name, of in hours.items()
                },
            },
            indent=2,
        )
    )  # fmt: skip


if __name__ == "__main__":
    main()
