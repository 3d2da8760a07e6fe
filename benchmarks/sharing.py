"""A training step with negatives per positive (`filtered`) or shared by chunks of positives.

    python -m benchmarks.sharing --graph graphs/fb15k-237

1,024 positives, 256 columns, one thread. CPU time is measured, which depends less on other load.
Contestants alternate in turns of four steps.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from pathlib import Path
from typing import ClassVar

import torch
from torch import Tensor, nn

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.ops import Metric
from mmkgc_cli.sampling.contract import SamplerConfig
from mmkgc_cli.sampling.samplers.filtered import FilteredSampler
from mmkgc_cli.sampling.samplers.shared import SharedConfig, SharedSampler
from mmkgc_cli.scoring import Scorer, ScorerConfig, Side, load_scorer
from mmkgc_cli.state.memory import keep_freed_memory
from mmkgc_cli.training.link_prediction import LinkPrediction
from mmkgc_cli.training.settings import (
    DenseOptimizer,
    NegativesSettings,
    PlainSchedule,
    SelfAdversarialLoss,
    TrainingSettings,
)

WIDTH, TURN = 256, 4


class DistMult(Scorer):
    metric = Metric.dot
    citation: ClassVar[str] = "Bishan Yang et al. Embedding entities and relations. ICLR, 2015."

    def __init__(
        self, config: ScorerConfig, n_entities: int, n_relations: int, generator: torch.Generator
    ) -> None:
        super().__init__(config, n_entities, n_relations, generator)
        self.entities = nn.Parameter(torch.randn(n_entities, WIDTH, generator=generator) / 16)
        self.relations = nn.Parameter(torch.randn(n_relations, WIDTH, generator=generator) / 16)

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        look_up = nn.functional.embedding
        return look_up(entities, self.entities) * look_up(relations, self.relations)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        return (
            self.entities if entities is None else nn.functional.embedding(entities, self.entities)
        )


def program(scorer_class: type[Scorer], graph: Graph, n: int, chunk: int) -> LinkPrediction:
    """Builds a program that shares negatives among `chunk` positives; 0 does not share."""
    rng = torch.Generator().manual_seed(0)
    sizes = len(graph.entities), len(graph.relations)
    result = LinkPrediction(
        scorer_class(scorer_class.Config(), *sizes, rng),
        torch.from_numpy(graph.train).long(),
        training=TrainingSettings(epochs=1, batch_size=1024),
        negatives=NegativesSettings(count=n),
        loss=SelfAdversarialLoss(),
        optimizer=DenseOptimizer(),
        schedule=PlainSchedule(),
        sampler=SharedSampler if chunk else FilteredSampler,
        sampler_config=SharedConfig(chunk=chunk) if chunk else SamplerConfig(),
    )
    result.start_epoch()
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--graph", type=Path, required=True)
    parser.add_argument("--rounds", type=int, default=8)
    options = parser.parse_args()
    torch.set_num_threads(1)
    keep_freed_memory()
    graph = load_graph(options.graph)
    result = {}
    for n in (32, 256):
        programs = {
            f"{name}, {f'shared by {chunk}' if chunk else 'filtered'}": program(
                scorer_class, graph, n, chunk
            )
            for name, scorer_class in (("dot", DistMult), ("rotate", load_scorer("rotate")))
            for chunk in (0, 64, 256)
        }
        times: dict[str, list[float]] = {name: [] for name in programs}
        for turn in range(-1, options.rounds):
            for name, contestant in programs.items():
                start = time.process_time()
                for index in range(TURN):
                    contestant.step((turn + 1) * TURN + index)
                if turn >= 0:  # the first turn is a warm-up
                    times[name].append(1e3 * (time.process_time() - start) / TURN)
        median = {name: statistics.median(values) for name, values in times.items()}
        result[f"{n} negatives"] = {
            name: {
                "ms": round(ms, 1),
                "of filtered": round(ms / median[f"{name.split(',')[0]}, filtered"], 2),
            }
            for name, ms in median.items()
        }
    print(json.dumps(result, indent=2))


if __name__ == "__main__":
    main()
