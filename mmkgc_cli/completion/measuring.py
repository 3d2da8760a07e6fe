"""Measures of generated vectors against held-out ones."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import torch
from torch import Tensor

_BLOCK_ROWS = 512
HITS_AT = 10
# Cosines that differ by at most this are ties: products of equal rows may round differently.
_TIE_TOLERANCE = 1e-9
# A vector counts as equal to the mean if its distance to the mean, divided by the root mean square
# distance of the held-out vectors, is at most this.
_MEAN_TOLERANCE = 1e-6


@dataclass(frozen=True)
class Measures:
    """Means over the held-out entities.

    Attributes:
        count: number of held-out entities.
        cosine: cosine of the generated and the true vector; 0 if one of them is zero.
        centred_cosine: cosine after subtracting the mean of the observed vectors from both; 0 if
            one of them equals that mean.
        hits10, mrr: hits@10 and MRR of the true vector among all held-out ones, ranked by centred
            cosine with the generated vector. Ties get their mean rank.
        energy: normalized energy distance of generated vectors g and true vectors v (Székely and
            Rizzo, 2013): (2 E|g - v| - E|g - g'| - E|v - v'|) / (2 E|g - v|). It is 0 for equal
            distributions and 1 if all g are one point and all v another.
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
    """True vectors of the held-out entities, to compare generated vectors with."""

    def __init__(self, vectors: Tensor, mean: Tensor) -> None:
        """Takes float32 `vectors` ``[n, d]`` and the `mean` ``[d]`` of the vectors not held out."""
        self._vectors = vectors.double()
        self._mean = mean.double()
        distance = float((self._vectors - self._mean).square().sum(1).mean().sqrt())
        self._min_distance = _MEAN_TOLERANCE * distance
        self._directions = self._centred(self._vectors)
        self._true_distance = _mean_distance(self._vectors, self._vectors)

    def measure(self, generated: Tensor) -> Measures:
        """Compares vectors ``[n, d]``, generated for the same entities in the same order."""
        generated = generated.double()
        directions = self._centred(generated)
        ranks = self._ranks(directions)
        cross_distance = _mean_distance(generated, self._vectors)
        energy = 2 * cross_distance - _mean_distance(generated, generated) - self._true_distance
        return Measures(
            count=len(generated),
            cosine=float((_unit(generated, 0.0) * _unit(self._vectors, 0.0)).sum(1).mean()),
            centred_cosine=float((directions * self._directions).sum(1).mean()),
            hits10=float((ranks <= HITS_AT).double().mean()),
            mrr=float((1 / ranks).mean()),
            energy=max(0.0, energy / (2 * cross_distance)) if cross_distance else 0.0,
        )

    def _centred(self, vectors: Tensor) -> Tensor:
        return _unit(vectors - self._mean, self._min_distance)

    def _ranks(self, directions: Tensor) -> Tensor:
        """Ranks the true vector of each row: 1 + number of better vectors + half the ties."""
        ranks = []
        for start in range(0, len(directions), _BLOCK_ROWS):
            scores = directions[start : start + _BLOCK_ROWS] @ self._directions.T
            true_scores = scores.diagonal(offset=start)[:, None]
            better = (scores > true_scores + _TIE_TOLERANCE).sum(1)
            equal = ((scores - true_scores).abs() <= _TIE_TOLERANCE).sum(1) - 1
            ranks.append(1 + better + equal / 2)
        return torch.cat(ranks).double()


def _unit(vectors: Tensor, min_length: float) -> Tensor:
    """Scales rows to length 1; rows with a length of at most `min_length` become zero."""
    length = vectors.norm(dim=1, keepdim=True)
    return torch.where(length > min_length, vectors / length, 0.0)


def _mean_distance(left: Tensor, right: Tensor) -> float:
    """Mean Euclidean distance over all pairs, computed in blocks."""
    total = 0.0
    for block in torch.split(left, _BLOCK_ROWS):
        total += float(torch.cdist(block, right).sum())
    return total / (len(left) * len(right))
