"""Feature vectors of a modality: as a table, frozen or trained, and as initial values."""

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

    `vectors` ``[E, d]`` are floats; `observed` ``[E]`` bool is True for extracted vectors and False
    for generated or filled-in ones.
    """

    vectors: Tensor
    observed: Tensor


NO_FEATURES: Mapping[str, Features] = MappingProxyType({})


class FeatureTable(nn.Module):
    """Vectors ``[E, F]`` of one modality: initial values of parameters, or frozen."""

    vectors: Tensor

    def __init__(self, features: Features, *, frozen: bool) -> None:
        """Copies the vectors to a parameter; if `frozen`, keeps them in a non-persistent buffer."""
        super().__init__()
        self.frozen = frozen
        if frozen:
            self.register_buffer("vectors", features.vectors, persistent=False)
        else:
            self.vectors = nn.Parameter(features.vectors.clone())

    @property
    def width(self) -> int:
        """The width F of the vectors."""
        return self.vectors.shape[1]

    def forward(self, entities: Tensor | None) -> Tensor:
        """Vectors of `entities` [n], or of all entities when None."""
        return lookup(self.vectors, entities)


def initialize_from(features: Features, rows: nn.Parameter, generator: torch.Generator) -> None:
    """Sets the `rows` [E, d] of observed entities to a random projection of their `features`.

    The projection approximately preserves relative distances; the standard deviation of `rows` is
    kept.
    """
    width = features.vectors.shape[1]
    projection = torch.randn(width, rows.shape[1], generator=generator) / math.sqrt(width)
    if not (observed := features.observed).any():
        return
    vectors = features.vectors[observed].to(projection)
    projected = (vectors - vectors.mean(0)) @ projection
    deviation = projected.std(correction=0).clamp_min(torch.finfo(projected.dtype).tiny)
    with torch.no_grad():
        rows[observed] = projected * (rows.std(correction=0) / deviation)
