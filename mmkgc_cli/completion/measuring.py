"""Measures of generated vectors against held-out ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

_ROWS = 512
HITS_AT = 10
# Cosines within this distance count as ties: products of equal rows may be rounded differently.
_TIE = 1e-9
# A vector counts as the mean when its distance to the mean is below this share of the usual one.
_AT_MEAN = 1e-6


@dataclass(frozen=True)
class Measures:
    """Means over the held-out entities.

    Attributes:
        count: number of held-out entities.
        cosine: cosine of the generated and the true vector; 0 where one of them is zero.
        centred_cosine: the same after subtracting the mean of the observed vectors; 0 for the mean.
        hits10, mrr: hits@10 and MRR of the true vector among all held-out ones, ranked by centred
            cosine with the generated vector. Ties get their mean rank.
        energy: (2 E|g - v| - E|g - g'| - E|v - v'|) / (2 E|g - v|) (Székely and Rizzo, 2013): 0 for
            equal distributions, 1 for two different points.
    """

    count: int
    cosine: float
    centred_cosine: float
    hits10: float
    mrr: float
    energy: float

    def as_object(self) -> dict[str, float]:
        """Returns plain JSON."""
        return asdict(self)


class HeldOutVectors:
    """True vectors of held-out entities, against which strategies are measured."""

    def __init__(self, vectors: Tensor, mean: Tensor) -> None:
        """Takes float32 `vectors` ``[n, d]`` and the `mean` ``[d]`` of the still observed ones."""
        self._vectors = vectors.double()
        self._mean = mean.double()
        self._scale = _AT_MEAN * float((self._vectors - self._mean).square().sum(1).mean().sqrt())
        self._directions = self._centred(self._vectors)
        self._spread = _mean_distance(self._vectors, self._vectors)

    def measure(self, generated: Tensor) -> Measures:
        """Measures vectors ``[n, d]`` of the same entities in the same order."""
        generated = generated.double()
        directions = self._centred(generated)
        ranks = self._ranks(directions)
        across = _mean_distance(generated, self._vectors)
        apart = 2 * across - _mean_distance(generated, generated) - self._spread
        return Measures(
            count=len(generated),
            cosine=float((_unit(generated, 0.0) * _unit(self._vectors, 0.0)).sum(1).mean()),
            centred_cosine=float((directions * self._directions).sum(1).mean()),
            hits10=float((ranks <= HITS_AT).double().mean()),
            mrr=float((1 / ranks).mean()),
            energy=max(0.0, apart / (2 * across)) if across else 0.0,
        )

    def _centred(self, vectors: Tensor) -> Tensor:
        return _unit(vectors - self._mean, self._scale)

    def _ranks(self, directions: Tensor) -> Tensor:
        """Rank of the true vector of each row: 1 + number of better ones + half the ties."""
        ranks = []
        for start in range(0, len(directions), _ROWS):
            scores = directions[start : start + _ROWS] @ self._directions.T
            true_scores = scores.diagonal(offset=start)[:, None]
            better = (scores > true_scores + _TIE).sum(1)
            equal = ((scores - true_scores).abs() <= _TIE).sum(1) - 1
            ranks.append(1 + better + equal / 2)
        return torch.cat(ranks).double()


def _unit(vectors: Tensor, min_length: float) -> Tensor:
    """Rows scaled to length 1; zero where the length is at most `min_length`."""
    length = vectors.norm(dim=1, keepdim=True)
    return torch.where(length > min_length, vectors / length, 0.0)


def _mean_distance(left: Tensor, right: Tensor) -> float:
    """Mean Euclidean distance over all pairs, computed in blocks."""
    total = 0.0
    for block in torch.split(left, _ROWS):
        total += float(torch.cdist(block, right).sum())
    return total / (len(left) * len(right))
