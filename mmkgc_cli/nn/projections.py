"""Maps from the vectors of a modality to the width of a model."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from mmkgc_cli.nn.functional import uniform


def xavier(*shape: int, generator: torch.Generator) -> nn.Parameter:
    """Xavier-uniform numbers; of a stack of matrices each by itself."""
    made = nn.Parameter(torch.empty(shape))
    for matrix in made.data.view(-1, *shape[-2:]):
        nn.init.xavier_uniform_(matrix, generator=generator)
    return made


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


class Projector(nn.Module):
    """Two linear layers with a ReLU between: ``[n, F]`` to ``[n, d]`` (MoCME section 3.1, NativE).

    Weights start Xavier-uniform, biases at 0.
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
