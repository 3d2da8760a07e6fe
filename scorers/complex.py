"""ComplEx (Trouillon et al., 2016): DistMult with complex embeddings, not symmetric."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.nn.functional import complex_product, uniform
from mmkgc_cli.ops import Metric, lookup
from mmkgc_cli.scoring.contract import Batch, Scorer, Side
from mmkgc_cli.scoring.regularization import RegularizedConfig, penalty


class ComplExConfig(RegularizedConfig):
    """Hyper-parameters of ComplEx."""

    dim: int = Field(128, ge=1, le=2**16, description="Complex width: 2 x dim real numbers.")
    init: float = Field(0.1, gt=0, le=1e6, description="Initial values are uniform in +- init.")


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
        """Rows are laid out [re | im]; initial values are uniform in +-init."""
        super().__init__(config, n_entities, n_relations, generator)
        self._regularization = config
        width, bound = 2 * config.dim, config.init
        self.entities = uniform(n_entities, width, bound=bound, generator=generator)
        self.relations = uniform(n_relations, width, bound=bound, generator=generator)

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """h r for tails; t conj(r) for heads, since Re h r conj(t) = Re h conj(t conj(r))."""
        known, r = lookup(self.entities, entities), lookup(self.relations, relations)
        return complex_product(known, r, conjugate=side is Side.head)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """The entity embeddings."""
        return lookup(self.entities, entities)

    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The configured penalty: l3 on real and imaginary parts, n3 on moduli."""
        return penalty(
            self._regularization, self.entities, self.relations, batch.triples, modulus=True
        )


SCORER = ComplEx
