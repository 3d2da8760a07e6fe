"""What several scorers are made of: tables at their start, rows of length 1, complex products."""

from __future__ import annotations

import torch
from torch import Tensor, nn

# Shorter rows count as zero: the slope of their direction would drown all others.
SHORTEST = 1e-12


def uniform(*shape: int, bound: float, generator: torch.Generator) -> nn.Parameter:
    """Numbers of this shape that start uniform in +-`bound`."""
    return nn.Parameter(torch.empty(shape).uniform_(-bound, bound, generator=generator))


def unit(rows: Tensor) -> Tensor:
    """Rows ``[..., d]`` at length 1; zero rows stay zero, and have gradient zero."""
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(lengths > SHORTEST, lengths, torch.inf)


def complex_product(rows: Tensor, others: Tensor, conjugate: bool = False) -> Tensor:
    """rows * others ``[B, 2d]`` in complex numbers laid out [re | im].

    `conjugate` takes the conjugates of `others`.
    """
    re, im = rows.chunk(2, -1)
    other_re, other_im = others.chunk(2, -1)
    if conjugate:
        other_im = -other_im
    return torch.cat([re * other_re - im * other_im, re * other_im + im * other_re], -1)
