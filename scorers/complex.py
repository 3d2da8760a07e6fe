"""ComplEx: DistMult in complex numbers, so that head and tail may not change places."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor, nn

from mmkgc_cli.ops import Metric, lookup
from mmkgc_cli.scoring.contract import Batch, Scorer, Side
from mmkgc_cli.scoring.regularization import RegularizedConfig, penalty


class ComplExConfig(RegularizedConfig):
    """Hyper-parameters of ComplEx."""

    dim: int = Field(128, ge=1, le=2**16, description="complex width, 2 x dim real numbers")
    init: float = Field(0.1, gt=0, le=1e6, description="both parts start uniform in +- this")


class ComplEx(Scorer):
    """score = Re sum_k h_k r_k conj(t_k) (Trouillon et al. 2016, eq. 9)."""

    Config = ComplExConfig
    metric = Metric.dot
    citation: ClassVar[str] = (
        "Theo Trouillon, Johannes Welbl, Sebastian Riedel, Eric Gaussier and Guillaume Bouchard. "
        "Complex embeddings for simple link prediction. ICML, 2016."
    )

    def __init__(
        self,
        config: ComplExConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Rows are laid out [re | im] and start uniform in +-init."""
        super().__init__(config, n_entities, n_relations, generator)
        self._regularization = config
        for name, count in (("entities", n_entities), ("relations", n_relations)):
            rows = torch.empty(count, 2 * config.dim)
            rows.uniform_(-config.init, config.init, generator=generator)
            self.register_parameter(name, nn.Parameter(rows))
        self.entities: nn.Parameter
        self.relations: nn.Parameter

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """h r for tails; t conj(r) for heads, since Re h r conj(t) = Re h conj(t conj(r))."""
        re, im = lookup(self.entities, entities).chunk(2, -1)
        r_re, r_im = lookup(self.relations, relations).chunk(2, -1)
        if side is Side.head:
            r_im = -r_im
        return torch.cat([re * r_re - im * r_im, re * r_im + im * r_re], -1)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """The entity rows themselves."""
        return self.entities if entities is None else lookup(self.entities, entities)

    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The penalty that is configured: l3 on both parts alike, n3 on moduli."""
        return penalty(
            self._regularization, self.entities, self.relations, batch.triples, modulus=True
        )


SCORER = ComplEx
