"""K views of a vector, and their weighted sum without making them."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmkgc_cli.nn.projections import xavier

SPREAD = 0.02  # of the weights of linear experts around the identity


def weighted(views: Tensor, shares: Tensor) -> Tensor:
    """sum_i shares_i x^i ``[n, d]`` of `views` [K, n, d], for `shares` [K] or [n, K] of each."""
    return (views * (shares[:, None, None] if shares.dim() == 1 else shares.T[..., None])).sum(0)


class LinearExperts(nn.Module):
    """x^i = (v - b_i) A_i, i = 1..K, with A_i [d, d] and b_i [d] (MoMoK's whitening experts).

    A_i starts at I + N(0, 0.02^2), so that vectors keep their length, and b_i at 0.
    """

    def __init__(self, experts: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        noise = torch.empty(experts, dim, dim).normal_(0, SPREAD, generator=generator)
        self.weight = nn.Parameter(torch.eye(dim) + noise)
        self.bias = nn.Parameter(torch.zeros(experts, dim))

    def views(self, rows: Tensor) -> Tensor:
        """All views ``[K, n, d]`` of `rows` [n, d]."""
        return (rows - self.bias[:, None]) @ self.weight

    def merged(self, shares: Tensor) -> tuple[Tensor, Tensor]:
        """A [d, d] and b [d] with v A - b = sum_i shares_i x^i, for `shares` [K] of all rows."""
        matrix = torch.einsum("k,kde->de", shares, self.weight)
        offset = torch.einsum("kd,kde->e", shares[:, None] * self.bias, self.weight)
        return matrix, offset

    def mixed(self, rows: Tensor, shares: Tensor) -> Tensor:
        """sum_i shares_i x^i ``[n, d]``, for `shares` [K] of all rows or [n, K] of each.

        Shares of all rows are merged into one matrix; those of each row scale it before it meets
        the experts, whose products add up where they are made.
        """
        if shares.dim() == 1:
            matrix, offset = self.merged(shares)
            return torch.addmm(-offset, rows, matrix)
        mixed = -(shares @ torch.einsum("kd,kde->ke", self.bias, self.weight))
        for i, matrix in enumerate(self.weight.unbind()):
            mixed = torch.addmm(mixed, shares[:, i : i + 1] * rows, matrix)
        return mixed


class MlpExperts(nn.Module):
    """x^i = relu((v - b_i) A_i + a_i) B_i: no sum of these is one matrix, whatever the shares."""

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

    def mixed(self, rows: Tensor, shares: Tensor) -> Tensor:
        """sum_i shares_i x^i ``[n, d]``, for `shares` [K] of all rows or [n, K] of each."""
        return weighted(self.views(rows), shares)


Experts = LinearExperts | MlpExperts
