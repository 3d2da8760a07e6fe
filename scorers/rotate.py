"""RotatE (Sun et al., 2019): relations are rotations in complex space."""

from __future__ import annotations

import math
from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.nn.functional import uniform
from mmkgc_cli.ops import Metric, RowLoss, lookup, rotate_loss, rotate_score
from mmkgc_cli.scoring.contract import Candidates, Scorer, ScorerConfig, Side


class RotatEConfig(ScorerConfig):
    """Hyper-parameters of RotatE."""

    dim: int = Field(128, ge=1, le=2**16, description="Complex width: 2 x dim real numbers.")
    margin: float = Field(9.0, gt=0, le=1e6, description="Margin; initial values scale with it.")


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
        """Initial entities are uniform in +-(margin + 2) / dim, phases uniform on the circle."""
        super().__init__(config, n_entities, n_relations, generator)
        self._margin = config.margin
        bound = (config.margin + 2) / config.dim
        self.entities = uniform(n_entities, 2 * config.dim, bound=bound, generator=generator)
        self.phases = uniform(n_relations, config.dim, bound=math.pi, generator=generator)

    @property
    def margin(self) -> float:
        """The setting `margin`."""
        return self._margin

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """h o r for tails; t o conj(r) for heads, since |h r - t| = |h - t conj(r)|."""
        re, im = lookup(self.entities, entities).chunk(2, -1)
        theta = lookup(self.phases, relations)
        cos, sin = theta.cos(), theta.sin()
        if side is Side.head:
            sin = -sin
        return torch.cat([re * cos - im * sin, re * sin + im * cos], -1)

    def score_sampled(self, positives: Tensor, candidates: Candidates) -> Tensor:
        """The same scores as by `query` and `candidates`, in one op from both tables."""
        heads, relations, tails = positives.unbind(1)
        return self._margin + rotate_score(
            self.entities, self.phases, heads, relations, tails, ids=candidates.ids,
            corrupted_side=candidates.corrupted_side, order=candidates.order,
        )  # fmt: skip

    def loss_sampled(self, positives: Tensor, candidates: Candidates, loss: RowLoss) -> Tensor:
        """The loss of these scores, in one op too."""
        heads, relations, tails = positives.unbind(1)
        return rotate_loss(
            self.entities, self.phases, heads, relations, tails, ids=candidates.ids,
            corrupted_side=candidates.corrupted_side, mask=candidates.mask, loss=loss,
            offset=self._margin, order=candidates.order,
        )  # fmt: skip

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """The entity embeddings."""
        return lookup(self.entities, entities)


SCORER = RotatE
