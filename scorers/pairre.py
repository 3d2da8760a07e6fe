"""PairRE (Chao et al., 2021): each relation scales heads and tails by a pair of vectors."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.nn.functional import uniform, unit
from mmkgc_cli.ops import Metric, lookup
from mmkgc_cli.scoring.contract import Scorer, ScorerConfig, Side


class PairREConfig(ScorerConfig):
    """Hyper-parameters of PairRE."""

    dim: int = Field(
        128, ge=1, le=2**16, description="Width of entities; relations have twice the width."
    )
    margin: float = Field(6.0, ge=0, le=1e6, description="Margin; initial values scale with it.")


class PairRE(Scorer):
    """score = margin - ||h o r_h - t o r_t||_1, |h| = |t| = 1 (Chao et al. 2021, eq. 1)."""

    Config = PairREConfig
    metric = Metric.l1
    citation: ClassVar[str] = (
        "Linlin Chao, Jianshan He, Taifeng Wang and Wei Chu. PairRE: Knowledge graph embeddings "
        "via paired relation vectors. ACL, 2021."
    )

    def __init__(
        self,
        config: PairREConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Initial values are uniform in +-(margin + 2) / dim; relations are [r_h | r_t]."""
        super().__init__(config, n_entities, n_relations, generator)
        self._margin = config.margin
        bound = (config.margin + 2) / config.dim
        self.entities = uniform(n_entities, config.dim, bound=bound, generator=generator)
        self.relations = uniform(n_relations, 2 * config.dim, bound=bound, generator=generator)

    @property
    def margin(self) -> float:
        """The setting `margin`."""
        return self._margin

    def _factors(self, relations: Tensor, side: Side) -> Tensor:
        """The factors of `relations` [B] for heads or tails."""
        r_head, r_tail = lookup(self.relations, relations).chunk(2, -1)
        return r_head if side is Side.head else r_tail

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """h o r_h for tails, t o r_t for heads."""
        known_side = Side.head if side is Side.tail else Side.tail
        return self.candidates(entities) * self._factors(relations, known_side)

    def scale(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """r_t for tails, r_h for heads; coordinates may be zero."""
        return self._factors(relations, side)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """The entity embeddings, normalized to length 1."""
        return unit(lookup(self.entities, entities))


SCORER = PairRE
