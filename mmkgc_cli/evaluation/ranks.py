"""Ranks of triples: optimistic, pessimistic and realistic."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.evaluation.known import Ids


@dataclass(frozen=True)
class SideRanks:
    """Ranks of n triples on one side, in the order of the triples.

    Attributes, all int64 ``[n]``:
        optimistic: rank with ties counted in favour of the answer.
        pessimistic: rank with ties counted against the answer.
        candidates: number of ranked entities, including the answer.
    """

    optimistic: Ids
    pessimistic: Ids
    candidates: Ids

    @property
    def realistic(self) -> NDArray[np.float64]:
        """Mean rank over all orders of the tied entities."""
        return (self.optimistic + self.pessimistic) / 2
