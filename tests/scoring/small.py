"""Small scorers on a grid of eighths, where float32 sums are exact and ties are common."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.ops import Metric
from mmkgc_cli.scoring import Scorer, ScorerConfig, Side

WIDTH = 6


class Grid(Scorer):
    citation: ClassVar[str] = "a test"

    def __init__(
        self, config: ScorerConfig, n_entities: int, n_relations: int, generator: torch.Generator
    ) -> None:
        super().__init__(config, n_entities, n_relations, generator)

        def grid(n: int) -> nn.Parameter:
            return nn.Parameter((torch.randn(n, WIDTH, generator=generator) * 2).round() / 8)

        self.entities, self.relations = grid(n_entities), grid(n_relations)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        return self.entities if entities is None else self.entities[entities]


class DistMult(Grid):
    metric = Metric.dot

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        return self.entities[entities] * self.relations[relations]


class TransE(Grid):
    metric = Metric.l1

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        sign = 1 if side is Side.tail else -1
        return self.entities[entities] + sign * self.relations[relations]


def of(scorer_class: type[Scorer], graph: Graph, seed: int) -> Scorer:
    rng = torch.Generator().manual_seed(seed)
    return scorer_class(
        scorer_class.Config(), len(graph.entities), len(graph.relations), rng
    ).eval()
