"""Relation frequency: ranks entities by how often train shows them on that side of the relation.

It learns nothing about the known entity, so a model that does not beat it has learnt nothing.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor

from mmkgc_cli.ops import Metric
from mmkgc_cli.scoring.contract import Scorer, ScorerConfig, Side


class Frequency(Scorer):
    """score(h, r, t) = how many train triples have relation r and tail t (or head h)."""

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
        """An empty count; `fit` fills it."""
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
        """Ones: the known entity plays no part."""
        return self.counts.new_ones(len(entities), 1)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """The counts under a relation on a side, ``[n, 1]``."""
        if relation is None or side is None:
            raise ValueError("frequency needs the relation and the side")
        if entities is None:
            entities = torch.arange(self.n_entities, device=self.keys.device)
        if not len(self.keys):
            return self.counts.new_zeros(len(entities), 1)
        wanted = (side * self.n_relations + relation) * self.n_entities + entities
        at = torch.searchsorted(self.keys, wanted).clamp(max=len(self.keys) - 1)
        return torch.where(self.keys[at] == wanted, self.counts[at], 0)[:, None]


SCORER = Frequency
