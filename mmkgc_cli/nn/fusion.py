"""Fusions of the vectors of several modalities, where some may be missing."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from mmkgc_cli.nn.projections import xavier


class Gate(nn.Module):
    """sum_m softmax_m(a . tanh(v_m)) v_m over available modalities (AdaMF, NativE)."""

    def __init__(self, modalities: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.direction = xavier(1, dim, generator=generator)

    def forward(self, rows: Tensor, available: Tensor) -> Tensor:
        """``[n, d]`` of `rows` [n, M, d], `available` [n, M] bool."""
        logits = (rows.tanh() @ self.direction.T).squeeze(-1)
        weights = logits.masked_fill(~available, -torch.inf).softmax(-1)
        return (weights[..., None] * rows).sum(1)


class Product(nn.Module):
    """The elementwise product of the available modalities."""

    def __init__(self, modalities: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()

    def forward(self, rows: Tensor, available: Tensor) -> Tensor:
        """``[n, d]`` of `rows` [n, M, d], `available` [n, M] bool."""
        # Not `prod`: its backward copies a count of zeros to the CPU, which stalls the GPU.
        vectors = rows.masked_fill(~available[..., None], 1).unbind(1)
        return functools.reduce(torch.mul, vectors)


class Concatenation(nn.Module):
    """A linear layer on the concatenated vectors, with zeros for missing modalities."""

    def __init__(self, modalities: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = xavier(modalities * dim, dim, generator=generator)

    def forward(self, rows: Tensor, available: Tensor) -> Tensor:
        """``[n, d]`` of `rows` [n, M, d], `available` [n, M] bool."""
        return rows.masked_fill(~available[..., None], 0).flatten(1) @ self.weight


Fusion = Gate | Product | Concatenation
FUSIONS: dict[str, type[Fusion]] = {"gate": Gate, "product": Product, "concat": Concatenation}
