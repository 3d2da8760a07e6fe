"""Projections of feature vectors to the width of a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmkgc_cli.nn.functional import uniform


def xavier(*shape: int, generator: torch.Generator) -> nn.Parameter:
    """A parameter with Xavier-uniform initial values, for each matrix of a stack by itself."""
    parameter = nn.Parameter(torch.empty(shape))
    for matrix in parameter.data.view(-1, *shape[-2:]):
        nn.init.xavier_uniform_(matrix, generator=generator)
    return parameter


class Projection(nn.Module):
    """A linear layer from ``[n, F]`` to ``[n, d]``."""

    def __init__(
        self, width: int, dim: int, *, bound: float, bias: bool, generator: torch.Generator
    ) -> None:
        """Initial values are uniform in +-`bound`."""
        super().__init__()
        self.weight = uniform(dim, width, bound=bound, generator=generator)
        self.bias = uniform(dim, bound=bound, generator=generator) if bias else None

    def forward(self, rows: Tensor) -> Tensor:
        """``rows @ weight.T + bias``."""
        return nn.functional.linear(rows, self.weight, self.bias)


class Projector(nn.Module):
    """Two linear layers with a ReLU, ``[n, F]`` to ``[n, d]`` (MoCME section 3.1, NativE).

    Initial weights are Xavier-uniform, initial biases 0.
    """

    def __init__(self, width: int, dim: int, generator: torch.Generator) -> None:
        super().__init__()
        self.first = xavier(dim, width, generator=generator)
        self.first_bias = nn.Parameter(torch.zeros(dim))
        self.second = xavier(dim, dim, generator=generator)
        self.second_bias = nn.Parameter(torch.zeros(dim))

    def forward(self, rows: Tensor) -> Tensor:
        """``relu(rows @ first.T + b) @ second.T + b``."""
        hidden = nn.functional.linear(rows, self.first, self.first_bias).relu()
        return nn.functional.linear(hidden, self.second, self.second_bias)
