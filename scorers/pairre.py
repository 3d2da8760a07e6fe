"""PairRE: a relation weighs the coordinates of heads, and with other weights those of tails."""

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

    dim: int = Field(128, ge=1, le=2**16, description="of entities; relations have twice as many")
    margin: float = Field(6.0, ge=0, le=1e6, description="score of distance 0, and the init range")


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
        """Rows start uniform in +-(margin + 2) / dim; those of relations are [r_h | r_t]."""
        super().__init__(config, n_entities, n_relations, generator)
        self._margin = config.margin
        bound = (config.margin + 2) / config.dim
        self.entities = uniform(n_entities, config.dim, bound=bound, generator=generator)
        self.relations = uniform(n_relations, 2 * config.dim, bound=bound, generator=generator)

    @property
    def margin(self) -> float:
        """Added to minus the distance."""
        return self._margin

    def _weights(self, relations: Tensor, of: Side) -> Tensor:
        """What `relations` [B] multiply heads, or tails, by."""
        r_head, r_tail = lookup(self.relations, relations).chunk(2, -1)
        return r_head if of is Side.head else r_tail

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """h o r_h for tails, t o r_t for heads."""
        own = Side.head if side is Side.tail else Side.tail
        return self.candidates(entities) * self._weights(relations, own)

    def scale(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """r_t for tails, r_h for heads; may be zero anywhere."""
        return self._weights(relations, side)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """The entity rows at length 1."""
        return unit(lookup(self.entities, entities))


SCORER = PairRE
