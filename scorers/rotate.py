"""RotatE: a relation rotates every complex coordinate of the head towards the tail."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.nn.functional import uniform
from mmkgc_cli.ops import Metric, RowLoss, lookup, rotate_loss, rotate_score
from mmkgc_cli.scoring.contract import Scorer, ScorerConfig, Side


class RotatEConfig(ScorerConfig):
    """Hyper-parameters of RotatE."""

    dim: int = Field(128, ge=1, le=2**16, description="complex width, 2 x dim real numbers")
    margin: float = Field(9.0, gt=0, le=1e6, description="score of distance 0, and the init range")


class RotatE(Scorer):
    """score = margin - sum_k |h_k e^(i theta_k) - t_k| (Sun et al. 2019, eq. 2 and 5)."""

    Config = RotatEConfig
    metric = Metric.modulus
    citation: ClassVar[str] = (
        "Zhiqing Sun, Zhi-Hong Deng, Jian-Yun Nie and Jian Tang. RotatE: Knowledge graph embedding "
        "by relational rotation in complex space. ICLR, 2019."
    )

    def __init__(
        self,
        config: RotatEConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Entities start uniform in +-(margin + 2) / dim, phases uniform over the circle."""
        super().__init__(config, n_entities, n_relations, generator)
        self._margin = config.margin
        bound = (config.margin + 2) / config.dim
        self.entities = uniform(n_entities, 2 * config.dim, bound=bound, generator=generator)
        self.phases = uniform(n_relations, config.dim, bound=math.pi, generator=generator)

    @property
    def margin(self) -> float:
        """Added to minus the distance."""
        return self._margin

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """h o r for tails; t o conj(r) for heads, since |h r - t| = |h - t conj(r)|."""
        re, im = lookup(self.entities, entities).chunk(2, -1)
        theta = lookup(self.phases, relations)
        cos, sin = theta.cos(), theta.sin()
        if side is Side.head:
            sin = -sin
        return torch.cat([re * cos - im * sin, re * sin + im * cos], -1)

    def score_sampled(
        self,
        heads: Tensor,
        relations: Tensor,
        tails: Tensor,
        ids: Tensor,
        side: Tensor,
        order: Tensor | None = None,
    ) -> Tensor:
        """The same as by queries and candidates, in one op from the two tables."""
        return self._margin + rotate_score(
            self.entities, self.phases, heads, relations, tails, ids=ids, corrupted_side=side,
            order=order,
        )  # fmt: skip

    def loss_sampled(
        self,
        heads: Tensor,
        relations: Tensor,
        tails: Tensor,
        ids: Tensor,
        side: Tensor,
        usable: Tensor | None,
        loss: RowLoss,
        order: Tensor | None = None,
    ) -> Tensor:
        """The loss of those scores, in one op as well."""
        return rotate_loss(
            self.entities, self.phases, heads, relations, tails, ids=ids, corrupted_side=side,
            mask=usable, loss=loss, offset=self._margin, order=order,
        )  # fmt: skip

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """The entity rows themselves."""
        return lookup(self.entities, entities)


SCORER = RotatE
