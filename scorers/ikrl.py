"""IKRL: TransE on entities and on their projected images, and across the two."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.nn.embeddings import FeatureTable
from mmkgc_cli.nn.functional import uniform, unit
from mmkgc_cli.nn.projections import Projection
from mmkgc_cli.ops import Metric, Pair, lookup
from mmkgc_cli.scoring.contract import NO_FEATURES, Features, Scorer, ScorerConfig, Side


class IKRLConfig(ScorerConfig):
    """Hyper-parameters of IKRL."""

    dim: int = Field(128, ge=1, le=2**16, description="width of entities and relations")
    margin: float = Field(6.0, ge=0, le=1e6, description="what each distance is taken from")
    variant: Literal["paper", "released"] = Field(
        "paper",
        description="paper: the sum of the four terms; released: their mean, and a projection with "
        "a bias, as MACO's code",
    )
    modality: Literal["image", "text", "numeric", "structure", "audio", "video"] = Field(
        "image", description="whose vectors stand for the images"
    )
    freeze_features: bool = Field(
        False, description="keep the images as they are instead of training them"
    )


class IKRL(Scorer):
    """score = sum over a, b in {s, i} of margin - |a(h) + r - b(t)|_1, all of length 1.

    s(e) is a row of its own, i(e) = P v_e the projected image (Xie et al. 2017, eq. 3-8). Their
    attention over the images of an entity has no part: a store has one vector an entity.
    """

    Config = IKRLConfig
    metric = Metric.l1
    modalities: ClassVar[tuple[str, ...]] = (
        "image", "text", "numeric", "structure", "audio", "video",
    )  # fmt: skip
    citation: ClassVar[str] = (
        "Ruobing Xie, Zhiyuan Liu, Huanbo Luan and Maosong Sun. Image-embodied knowledge "
        "representation learning. IJCAI, 2017."
    )

    def __init__(
        self,
        config: IKRLConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
        features: Mapping[str, Features] = NO_FEATURES,
    ) -> None:
        """Rows start at a length near 1."""
        super().__init__(config, n_entities, n_relations, generator, features)
        released = config.variant == "released"
        self._weight = 0.25 if released else 1.0
        self._margin = config.margin * 4 * self._weight
        bound = (3 / config.dim) ** 0.5
        self.entities = uniform(n_entities, config.dim, bound=bound, generator=generator)
        self.relations = uniform(n_relations, config.dim, bound=bound, generator=generator)
        self.images = FeatureTable(features[config.modality], config.freeze_features)
        width = self.images.width
        self.projection = Projection(width, config.dim, width**-0.5, released, generator)

    @classmethod
    def modalities_of(cls, config: ScorerConfig) -> tuple[str, ...]:
        """The one that is set."""
        assert isinstance(config, IKRLConfig)
        return (config.modality,)

    @property
    def margin(self) -> float:
        """Added to minus the distances."""
        return self._margin

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """Blocks [s + r | i + r] for tails, and with - r for heads."""
        r = unit(lookup(self.relations, relations)).repeat(1, 2)
        known = self.candidates(entities)
        return known + r if side is Side.tail else known - r

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """Blocks [s | i]."""
        own = lookup(self.entities, entities)
        return torch.cat([unit(own), unit(self.projection(self.images(entities)))], -1)

    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        """Every query block meets every candidate block."""
        d = query_width // 2
        return [Pair(q, c, d, self._weight) for q in (0, d) for c in (0, d)]


SCORER = IKRL
