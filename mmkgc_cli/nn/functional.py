"""Functions that several scorers use: initial values, unit rows, complex products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Shorter rows count as zero: the gradient of their direction would dominate all others.
SHORTEST = 1e-12


def uniform(*shape: int, bound: float, generator: torch.Generator) -> nn.Parameter:
    """A parameter of this shape with initial values uniform in +-`bound`."""
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))


def unit(rows: Tensor) -> Tensor:
    """Rows ``[..., d]`` normalized to length 1; zero rows stay zero, with zero gradient."""
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(lengths > SHORTEST, lengths, torch.inf)


def complex_product(rows: Tensor, others: Tensor, *, conjugate: bool = False) -> Tensor:
    """The product rows * others ``[B, 2d]`` of complex rows laid out [re | im].

    With `conjugate`, rows * conj(others).
    """
    re, im = rows.chunk(2, -1)
    other_re, other_im = others.chunk(2, -1)
    if conjugate:
        other_im = -other_im
    return torch.cat([re * other_re - im * other_im, re * other_im + im * other_re], -1)
