"""What generated vectors are worth, where the true ones were hidden."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

_ROWS = 512
FIRST = 10
# Cosines this near are equal: products of equal rows may be rounded differently.
_TIE = 1e-9
# A vector this near to the mean, in shares of the usual distance from it, is at the mean.
_AT_MEAN = 1e-6


@dataclass(frozen=True)
class Measures:
    """Means over the hidden entities.

    Attributes:
        count: hidden entities.
        cosine: of the generated and the true vector; 0 where one of them is zero.
        centred_cosine: the same less the mean of the observed vectors; 0 for the mean itself.
        hits10, mrr: where the true vector ranks among all hidden ones by centred cosine with the
            generated one; ties count with the mean of their ranks.
        energy: 2 E|g - v| - E|g - g'| - E|v - v'| over 2 E|g - v| (Székely and Rizzo 2013): 0 for
            equal distributions, 1 for two different points.
    """

    count: int
    cosine: float
    centred_cosine: float
    hits10: float
    mrr: float
    energy: float

    def as_object(self) -> dict[str, float]:
        """As plain JSON."""
        return asdict(self)


class Truth:
    """Hidden vectors, float32 ``[n, d]``, and the mean ``[d]`` of those that stayed observed."""

    def __init__(self, vectors: Tensor, mean: Tensor) -> None:
        self._vectors = vectors.double()
        self._mean = mean.double()
        self._scale = _AT_MEAN * float((self._vectors - self._mean).square().sum(1).mean().sqrt())
        self._directions = self._centred(self._vectors)
        self._spread = _mean_distance(self._vectors, self._vectors)

    def measure(self, generated: Tensor) -> Measures:
        """Measures vectors ``[n, d]``, those of the same entities in the same order."""
        made = generated.double()
        directions = self._centred(made)
        ranks = self._ranks(directions)
        across = _mean_distance(made, self._vectors)
        apart = 2 * across - _mean_distance(made, made) - self._spread
        return Measures(
            count=len(made),
            cosine=float((_unit(made, 0.0) * _unit(self._vectors, 0.0)).sum(1).mean()),
            centred_cosine=float((directions * self._directions).sum(1).mean()),
            hits10=float((ranks <= FIRST).double().mean()),
            mrr=float((1 / ranks).mean()),
            energy=max(0.0, apart / (2 * across)) if across else 0.0,
        )

    def _centred(self, vectors: Tensor) -> Tensor:
        return _unit(vectors - self._mean, self._scale)

    def _ranks(self, directions: Tensor) -> Tensor:
        """Of the own true vector of each row: 1 + how many are better + half of those as good."""
        found = []
        for start in range(0, len(directions), _ROWS):
            scores = directions[start : start + _ROWS] @ self._directions.T
            own = scores.diagonal(offset=start)[:, None]
            better = (scores > own + _TIE).sum(1)
            equal = ((scores - own).abs() <= _TIE).sum(1) - 1
            found.append(1 + better + equal / 2)
        return torch.cat(found).double()


def _unit(vectors: Tensor, least: float) -> Tensor:
    """Rows of length 1; zero where they are no longer than `least`."""
    length = vectors.norm(dim=1, keepdim=True)
    return torch.where(length > least, vectors / length, 0.0)


def _mean_distance(left: Tensor, right: Tensor) -> float:
    """Mean Euclidean distance over all pairs, a block at a time."""
    total = 0.0
    for part in torch.split(left, _ROWS):
        total += float(torch.cdist(part, right).sum())
    return total / (len(left) * len(right))
