"""Ranks as the protocol counts them: optimistic, pessimistic, and the realistic mean of the two."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.evaluation.known import Ids


@dataclass(frozen=True)
class SideRanks:
    """Ranks of n triples on one side, in the order of the triples.

    `optimistic` counts ties in the target's favour, `pessimistic` against it, and `candidates` is
    how many entities took part, the target included; all int64 ``[n]``.
    """

    optimistic: Ids
    pessimistic: Ids
    candidates: Ids

    @property
    def realistic(self) -> NDArray[np.float64]:
        """The mean over all orders of the tied entities."""
        return (self.optimistic + self.pessimistic) / 2
