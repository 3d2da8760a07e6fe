"""Tables of vectors: features of a modality, frozen or trained, and initial values from them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from types import MappingProxyType

import torch
from torch import Tensor, nn

from mmkgc_cli.ops import lookup


@dataclass(frozen=True)
class Features:
    """One modality of all entities, in the order of their ids.

    `vectors` is ``[E, d]`` of floats; `observed` ``[E]`` bool says which rows are measured and not
    filled in.
    """

    vectors: Tensor
    observed: Tensor


NO_FEATURES: Mapping[str, Features] = MappingProxyType({})


class FeatureTable(nn.Module):
    """Vectors ``[E, F]`` of one modality: trained from where they begin, or frozen."""

    vectors: Tensor

    def __init__(self, features: Features, frozen: bool) -> None:
        """A trained table is a copy; a frozen one is a buffer that checkpoints leave out."""
        super().__init__()
        self.frozen = frozen
        if frozen:
            self.register_buffer("vectors", features.vectors, persistent=False)
        else:
            self.vectors = nn.Parameter(features.vectors.clone())

    @property
    def width(self) -> int:
        """F."""
        return self.vectors.shape[1]

    def forward(self, entities: Tensor | None) -> Tensor:
        """Vectors of `entities` [n], or of all when None."""
        return lookup(self.vectors, entities)


def begin_from(features: Features, rows: nn.Parameter, generator: torch.Generator) -> None:
    """Puts a random map of `features` into the `rows` [E, d] of entities that have them.

    The map keeps vectors about as far apart as they are. Numbers keep the spread that those of
    `rows` have.
    """
    width = features.vectors.shape[1]
    onto = torch.randn(width, rows.shape[1], generator=generator) / math.sqrt(width)
    if not (has := features.observed).any():
        return
    vectors = features.vectors[has].to(onto)
    mapped = (vectors - vectors.mean(0)) @ onto
    spread = mapped.std(correction=0).clamp_min(torch.finfo(mapped.dtype).tiny)
    with torch.no_grad():
        rows[has] = mapped * (rows.std(correction=0) / spread)
