"""DistMult (Yang et al., 2015): relations are diagonal bilinear forms."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.nn.functional import uniform
from mmkgc_cli.ops import Metric, lookup
from mmkgc_cli.scoring.contract import Batch, Scorer, Side
from mmkgc_cli.scoring.regularization import RegularizedConfig, penalty


class DistMultConfig(RegularizedConfig):
    """Hyper-parameters of DistMult."""

    dim: int = Field(128, ge=1, le=2**17, description="Width of entities and relations.")
    init: float = Field(0.1, gt=0, le=1e6, description="Initial values are uniform in +- init.")


class DistMult(Scorer):
    """score = sum_k h_k r_k t_k (Yang et al. 2015, eq. 2), symmetric in head and tail."""

    Config = DistMultConfig
    metric = Metric.dot
    citation: ClassVar[str] = (
        "Bishan Yang, Wen-tau Yih, Xiaodong He, Jianfeng Gao and Li Deng. Embedding entities and "
        "relations for learning and inference in knowledge bases. ICLR, 2015."
    )

    def __init__(
        self,
        config: DistMultConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Initial values are uniform in +-init."""
        super().__init__(config, n_entities, n_relations, generator)
        self._regularization = config
        self.entities = uniform(n_entities, config.dim, bound=config.init, generator=generator)
        self.relations = uniform(n_relations, config.dim, bound=config.init, generator=generator)

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """h r for tails and t r for heads."""
        return lookup(self.entities, entities) * lookup(self.relations, relations)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """The entity embeddings."""
        return lookup(self.entities, entities)

    def extra_losses(self, batch: Batch) -> dict[str, Tensor]:
        """The configured penalty, on absolute values."""
        return penalty(self._regularization, self.entities, self.relations, batch.triples)


SCORER = DistMult
