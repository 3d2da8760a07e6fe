"""IKRL (Xie et al., 2017): TransE on entity embeddings and projected images."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.nn.embeddings import FeatureTable
from mmkgc_cli.nn.functional import unit
from mmkgc_cli.nn.projections import Projection
from mmkgc_cli.ops import lookup
from mmkgc_cli.scoring.contract import NO_FEATURES, Features, ScorerConfig, Side
from mmkgc_cli.scoring.multimodal_transe import MultimodalTransE, MultimodalTransEConfig


class IKRLConfig(MultimodalTransEConfig):
    """Hyper-parameters of IKRL."""

    variant: Literal["paper", "released"] = Field(
        "paper",
        description="paper: the sum of four terms; released: their mean and a projection with "
        "bias, as in the code of MACO.",
    )
    modality: Literal["image", "text", "numeric", "structure", "audio", "video"] = Field(
        "image", description="Modality that is used as the images."
    )
    freeze_features: bool = Field(False, description="Keep the images fixed in training.")


class IKRL(MultimodalTransE):
    """score = sum over a, b in {s, i} of margin - |a(h) + r - b(t)|_1, all of length 1.

    s(e) is the embedding of e, i(e) = P v_e its projected image (Xie et al. 2017, eq. 3-8). The
    paper's attention over several images per entity is not implemented: a feature store has one
    vector per entity.
    """

    Config = IKRLConfig
    n_blocks = 2
    terms_of_blocks = ((0, 0), (0, 1), (1, 0), (1, 1))
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
        """Creates the images and their projection, after the embeddings."""
        super().__init__(config, n_entities, n_relations, generator, features)
        self.images = FeatureTable(features[config.modality], frozen=config.freeze_features)
        width = self.images.width
        self.projection = Projection(
            width, config.dim, bound=width**-0.5, bias=self.released, generator=generator
        )

    @classmethod
    def modalities_of(cls, config: ScorerConfig) -> tuple[str, ...]:
        """The setting `modality`."""
        assert isinstance(config, IKRLConfig)
        return (config.modality,)

    def candidates(
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Tensor:
        """Blocks [s | i]."""
        structure = lookup(self.entities, entities)
        return torch.cat([unit(structure), unit(self.projection(self.images(entities)))], -1)


SCORER = IKRL
