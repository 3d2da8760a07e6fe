"""Experts: K views of a vector, and their weighted sum without materializing the views."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmkgc_cli.nn.projections import xavier

SPREAD = 0.02  # standard deviation of initial linear experts around the identity


def weighted_sum(views: Tensor, weights: Tensor) -> Tensor:
    """sum_i w_i x^i ``[n, d]`` of `views` [K, n, d], for `weights` [K], or [n, K] per row."""
    factors = weights[:, None, None] if weights.dim() == 1 else weights.T[..., None]
    return (views * factors).sum(0)


class LinearExperts(nn.Module):
    """x^i = (v - b_i) A_i, i = 1..K, with A_i [d, d] and b_i [d] (MoMoK's whitening experts).

    Initially, A_i is I + N(0, 0.02^2), which nearly preserves lengths, and b_i is 0.
    """

    def __init__(self, experts: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        noise = torch.empty(experts, dim, dim).normal_(0, SPREAD, generator=generator)
        self.weight = nn.Parameter(torch.eye(dim) + noise)
        self.bias = nn.Parameter(torch.zeros(experts, dim))

    def views(self, rows: Tensor) -> Tensor:
        """All views ``[K, n, d]`` of `rows` [n, d]."""
        return (rows - self.bias[:, None]) @ self.weight

    def merge(self, weights: Tensor) -> tuple[Tensor, Tensor]:
        """A [d, d] and b [d] with v A - b = sum_i w_i x^i, for `weights` [K] of all rows."""
        matrix = torch.einsum("k,kde->de", weights, self.weight)
        offset = torch.einsum("kd,kde->e", weights[:, None] * self.bias, self.weight)
        return matrix, offset

    def mix(self, rows: Tensor, weights: Tensor) -> Tensor:
        """sum_i w_i x^i ``[n, d]``, for `weights` [K] of all rows, or [n, K] per row.

        Weights of all rows are merged into one matrix. Weights per row scale the row before each
        expert, and the products accumulate in one tensor.
        """
        if weights.dim() == 1:
            matrix, offset = self.merge(weights)
            return torch.addmm(-offset, rows, matrix)
        total = -(weights @ torch.einsum("kd,kde->ke", self.bias, self.weight))
        for i, matrix in enumerate(self.weight.unbind()):
            total = torch.addmm(total, weights[:, i : i + 1] * rows, matrix)
        return total


class MlpExperts(nn.Module):
    """x^i = relu((v - b_i) A_i + a_i) B_i; a weighted sum of these is not one matrix."""

    def __init__(self, experts: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = xavier(experts, dim, dim, generator=generator)
        self.bias = nn.Parameter(torch.zeros(experts, dim))
        self.first_bias = nn.Parameter(torch.zeros(experts, dim))
        self.second = xavier(experts, dim, dim, generator=generator)

    def views(self, rows: Tensor) -> Tensor:
        """All views ``[K, n, d]`` of `rows` [n, d]."""
        hidden = (rows - self.bias[:, None]) @ self.first + self.first_bias[:, None]
        return hidden.relu() @ self.second

    def mix(self, rows: Tensor, weights: Tensor) -> Tensor:
        """sum_i w_i x^i ``[n, d]``, for `weights` [K] of all rows, or [n, K] per row."""
        return weighted_sum(self.views(rows), weights)


Experts = LinearExperts | MlpExperts
