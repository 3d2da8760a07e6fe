"""TransE (Bordes et al., 2013): relations are translations of entity embeddings."""

from __future__ import annotations

from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.nn.functional import uniform, unit
from mmkgc_cli.ops import Metric, lookup
from mmkgc_cli.scoring.contract import Scorer, ScorerConfig, Side


class TransEConfig(ScorerConfig):
    """Hyper-parameters of TransE."""

    dim: int = Field(128, ge=1, le=2**17, description="Width of entities and relations.")
    margin: float = Field(9.0, ge=0, le=1e6, description="Margin; initial values scale with it.")
    norm: Literal["l1", "l2"] = Field("l1", description="Norm of the distance.")
    normalize: bool = Field(False, description="Scale all embeddings to length 1, as OpenKE does.")


class TransE(Scorer):
    """score = margin - ||h + r - t|| (Bordes et al. 2013, eq. 1; margin as Sun et al. 2019)."""

    Config = TransEConfig
    metric = Metric.l1  # default; `__init__` sets it from `norm`
    citation: ClassVar[str] = (
        "Antoine Bordes, Nicolas Usunier, Alberto Garcia-Duran, Jason Weston and Oksana Yakhnenko. "
        "Translating embeddings for modeling multi-relational data. NeurIPS, 2013."
    )

    def __init__(
        self,
        config: TransEConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
    ) -> None:
        """Initial values are uniform between -b and b, with b = (margin + 2) / dim."""
        super().__init__(config, n_entities, n_relations, generator)
        self.metric = Metric[config.norm]
        self._margin = config.margin
        self._normalize = config.normalize
        bound = (config.margin + 2) / config.dim
        self.entities = uniform(n_entities, config.dim, bound=bound, generator=generator)
        self.relations = uniform(n_relations, config.dim, bound=bound, generator=generator)

    @property
    def margin(self) -> float:
        """The setting `margin`."""
        return self._margin

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """h + r for tail queries; t - r for head queries, since |h + r - t| = |h - (t - r)|."""
        known = self._unit(lookup(self.entities, entities))
        r = self._unit(lookup(self.relations, relations))
        return known + r if side is Side.tail else known - r

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """Entity embeddings, scaled to length 1 if `normalize` is set."""
        return self._unit(lookup(self.entities, entities))

    def _unit(self, rows: Tensor) -> Tensor:
        return unit(rows) if self._normalize else rows


SCORER = TransE
