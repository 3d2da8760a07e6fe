"""Relation frequency: ranks entities by their count in train, per relation and side.

A baseline that ignores the known entity: a model with a lower MRR has learned nothing.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mmkgc_cli.ops import Metric
from mmkgc_cli.scoring.contract import Scorer, ScorerConfig, Side


class Frequency(Scorer):
    """score(h, r, t) = the number of train triples with relation r and tail t (or head h)."""

    metric = Metric.dot
    two_way = False
    roles = True
    per_relation = True
    citation: ClassVar[str] = "A baseline of this package, without a publication of its own."

    def __init__(
        self,
        config: ScorerConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Creates empty counts; `fit` fills them."""
        super().__init__(config, n_entities, n_relations, generator)
        # Sparse: keys (side * relations + relation) * entities + entity, ascending, and counts.
        self.register_buffer("keys", torch.empty(0, dtype=torch.int64))
        self.register_buffer("counts", torch.empty(0))
        self.keys: Tensor
        self.counts: Tensor

    def fit(self, triples: Tensor) -> None:
        """Counts entities by side and relation."""
        heads, relations, tails = triples.unbind(1)
        keys = torch.cat(
            [
                (Side.tail * self.n_relations + relations) * self.n_entities + tails,
                (Side.head * self.n_relations + relations) * self.n_entities + heads,
            ]
        )
        self.keys, counts = torch.unique(keys, return_counts=True)
        self.counts = counts.to(torch.float32)

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """Ones: the known entity is ignored."""
        return self.counts.new_ones(len(entities), 1)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """Counts ``[n, 1]`` of entities on `side` of `relation`."""
        if relation is None or side is None:
            raise ValueError("frequency: relation or side is None, expected both")
        if entities is None:
            entities = torch.arange(self.n_entities, device=self.keys.device)
        if not len(self.keys):
            return self.counts.new_zeros(len(entities), 1)
        keys = (side * self.n_relations + relation) * self.n_entities + entities
        positions = torch.searchsorted(self.keys, keys).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[positions] == keys, self.counts[positions], 0)[:, None]


SCORER = Frequency
