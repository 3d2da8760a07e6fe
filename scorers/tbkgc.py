"""TBKGC (Mousselly-Sergieh et al., 2018): TransE on embeddings, projected features and sums."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from mmkgc_cli.nn.embeddings import FeatureTable
from mmkgc_cli.nn.functional import unit
from mmkgc_cli.nn.projections import Projection
from mmkgc_cli.ops import lookup
from mmkgc_cli.scoring.contract import NO_FEATURES, Features, ScorerConfig, Side
from mmkgc_cli.scoring.multimodal_transe import MultimodalTransE, MultimodalTransEConfig


class TBKGCConfig(MultimodalTransEConfig):
    """Hyper-parameters of TBKGC."""

    dim: int = Field(128, ge=2, le=2**16, description="Width of entities and relations.")
    variant: Literal["paper", "released"] = Field(
        "paper",
        description="paper: the sum of five terms, image and text; released: their mean, image "
        "only, and a projection with bias, as in the code of MACO.",
    )
    freeze_features: bool = Field(False, description="Keep the vectors fixed in training.")


class TBKGC(MultimodalTransE):
    """score = margins - |s(h) + r - s(t)| - |m + r - m| - |m + r - s| - |s + r - m| - |j + r - j|.

    L1 distances of rows of length 1 (Mousselly-Sergieh et al. 2018, eq. 3-9): s(e) is the
    embedding of e, m(e) = [P_I v_e | P_T w_e] its projected image and text, j = s + m.
    """

    Config = TBKGCConfig
    n_blocks = 3
    terms_of_blocks = ((0, 0), (1, 1), (1, 0), (0, 1), (2, 2))
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
        """Creates the feature tables and their projections, after the embeddings."""
        super().__init__(config, n_entities, n_relations, generator, features)
        names = self.modalities_of(config)
        # Modalities share the width equally; the first one gets the remainder.
        widths = [config.dim // len(names)] * len(names)
        widths[0] += config.dim - sum(widths)
        self.tables = nn.ModuleDict(
            {name: FeatureTable(features[name], frozen=config.freeze_features) for name in names}
        )
        self.projections = nn.ModuleDict()
        for name, dim in zip(names, widths, strict=True):
            width = features[name].vectors.shape[1]
            self.projections[name] = Projection(
                width, dim, bound=width**-0.5, bias=self.released, generator=generator
            )

    @classmethod
    def modalities_of(cls, config: ScorerConfig) -> tuple[str, ...]:
        """Image and text; only the image under the variant ``released``."""
        assert isinstance(config, TBKGCConfig)
        return cls.modalities[:1] if config.variant == "released" else cls.modalities

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """Blocks [s | m | j]."""
        structure = lookup(self.entities, entities)
        parts = [self.projections[name](table(entities)) for name, table in self.tables.items()]
        projected = torch.cat(parts, -1)
        return torch.cat([unit(structure), unit(projected), unit(structure + projected)], -1)


SCORER = TBKGC
