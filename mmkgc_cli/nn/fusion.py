"""One vector from those of several modalities, some of which an entity may lack."""

from __future__ import annotations

import functools

import torch
from torch import Tensor, nn

from mmkgc_cli.nn.projections import xavier


class Gate(nn.Module):
    """sum_m softmax_m( a . tanh(v_m) ) v_m over what is there (AdaMF; NativE without relations)."""

    def __init__(self, modalities: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.direction = xavier(1, dim, generator=generator)

    def forward(self, rows: Tensor, available: Tensor) -> Tensor:
        """``[n, d]`` of `rows` [n, M, d], `available` [n, M] bool."""
        logits = (rows.tanh() @ self.direction.T).squeeze(-1)
        shares = logits.masked_fill(~available, -torch.inf).softmax(-1)
        return (shares[..., None] * rows).sum(1)


class Product(nn.Module):
    """The product of what is there, coordinate by coordinate."""

    def __init__(self, modalities: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()

    def forward(self, rows: Tensor, available: Tensor) -> Tensor:
        """``[n, d]`` of `rows` [n, M, d], `available` [n, M] bool."""
        # Not `prod`, whose backward counts zeros on the host.
        of_each = rows.masked_fill(~available[..., None], 1).unbind(1)
        return functools.reduce(torch.mul, of_each)


class Concatenation(nn.Module):
    """A linear map of all end to end, zeros where one is missing."""

    def __init__(self, modalities: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.weight = xavier(modalities * dim, dim, generator=generator)

    def forward(self, rows: Tensor, available: Tensor) -> Tensor:
        """``[n, d]`` of `rows` [n, M, d], `available` [n, M] bool."""
        return rows.masked_fill(~available[..., None], 0).flatten(1) @ self.weight


Fusion = Gate | Product | Concatenation
FUSIONS: dict[str, type[Fusion]] = {"gate": Gate, "product": Product, "concat": Concatenation}
