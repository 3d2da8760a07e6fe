"""What scorers with features are made of: tables of vectors and projections."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmkgc_cli.ops import lookup
from mmkgc_cli.scoring.blocks import uniform
from mmkgc_cli.scoring.pieces import Features


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


class Projection(nn.Module):
    """A linear map of rows: ``[n, F]`` to ``[n, d]``."""

    def __init__(
        self, width: int, dim: int, bound: float, bias: bool, generator: torch.Generator
    ) -> None:
        """All numbers start uniform in +-`bound`."""
        super().__init__()
        self.weight = uniform(dim, width, bound=bound, generator=generator)
        self.bias = uniform(dim, bound=bound, generator=generator) if bias else None

    def forward(self, rows: Tensor) -> Tensor:
        """``rows @ weight.T + bias``."""
        return nn.functional.linear(rows, self.weight, self.bias)
