"""TBKGC: TransE on entities, on their projected images and texts, across the two, and on sums."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmkgc_cli.nn.embeddings import FeatureTable
from mmkgc_cli.nn.functional import uniform, unit
from mmkgc_cli.nn.projections import Projection
from mmkgc_cli.ops import Metric, Pair, lookup
from mmkgc_cli.scoring.contract import NO_FEATURES, Features, Scorer, ScorerConfig, Side


class TBKGCConfig(ScorerConfig):
    """Hyper-parameters of TBKGC."""

    dim: int = Field(128, ge=2, le=2**16, description="width of entities and relations")
    margin: float = Field(6.0, ge=0, le=1e6, description="what each distance is taken from")
    variant: Literal["paper", "released"] = Field(
        "paper",
        description="paper: the sum of five terms, image and text; released: their mean, image "
        "alone, and a projection with a bias, as MACO's code",
    )
    freeze_features: bool = Field(
        False, description="keep the vectors as they are instead of training them"
    )


class TBKGC(Scorer):
    """score = margins - |s(h) + r - s(t)| - |m + r - m| - |m + r - s| - |s + r - m| - |j + r - j|.

    All under L1, each of the rows at length 1 (Mousselly-Sergieh et al. 2018, eq. 3-9): s(e) is a
    row of its own, m(e) = [P_I v_e | P_T w_e] has its image and its text, j = s + m.
    """

    Config = TBKGCConfig
    metric = Metric.l1
    modalities: ClassVar[tuple[str, ...]] = ("image", "text")
    citation: ClassVar[str] = (
        "Hatem Mousselly-Sergieh, Teresa Botschen, Iryna Gurevych and Stefan Roth. A multimodal "
        "translation-based approach for knowledge graph representation learning. *SEM, 2018."
    )

    def __init__(
        self,
        config: TBKGCConfig,
        n_entities: int,
        n_relations: int,
        generator: torch.Generator,
        features: Mapping[str, Features] = NO_FEATURES,
    ) -> None:
        """Rows start at a length near 1."""
        super().__init__(config, n_entities, n_relations, generator, features)
        released = config.variant == "released"
        self._weight = 0.2 if released else 1.0
        self._margin = config.margin * 5 * self._weight
        bound = (3 / config.dim) ** 0.5
        self.entities = uniform(n_entities, config.dim, bound=bound, generator=generator)
        self.relations = uniform(n_relations, config.dim, bound=bound, generator=generator)
        names = self.modalities_of(config)
        # Each has an equal part of the row; the first has what is left over.
        parts = [config.dim // len(names)] * len(names)
        parts[0] += config.dim - sum(parts)
        self.tables = nn.ModuleDict(
            {name: FeatureTable(features[name], config.freeze_features) for name in names}
        )
        self.projections = nn.ModuleDict()
        for name, part in zip(names, parts, strict=True):
            width = features[name].vectors.shape[1]
            self.projections[name] = Projection(width, part, width**-0.5, released, generator)

    @classmethod
    def modalities_of(cls, config: ScorerConfig) -> tuple[str, ...]:
        """The published code has images alone."""
        assert isinstance(config, TBKGCConfig)
        return cls.modalities[:1] if config.variant == "released" else cls.modalities

    @property
    def margin(self) -> float:
        """Added to minus the distances."""
        return self._margin

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Tensor:
        """Blocks [s + r | m + r | j + r] for tails, and with - r for heads."""
        r = unit(lookup(self.relations, relations)).repeat(1, 3)
        known = self.candidates(entities)
        return known + r if side is Side.tail else known - r

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """Blocks [s | m | j]."""
        own = lookup(self.entities, entities)
        parts = [self.projections[name](table(entities)) for name, table in self.tables.items()]
        seen = torch.cat(parts, -1)
        return torch.cat([unit(own), unit(seen), unit(own + seen)], -1)

    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]:
        """Structure and features meet one another and themselves, sums only themselves."""
        d = query_width // 3
        met = [(0, 0), (d, d), (d, 0), (0, d), (2 * d, 2 * d)]
        return [Pair(q, c, d, self._weight) for q, c in met]


SCORER = TBKGC
