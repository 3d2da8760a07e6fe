"""Relation categories 1-1, 1-N, N-1, N-N, as Bordes et al. (2013, section 4.3) define them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

CATEGORIES = ("1-1", "1-N", "N-1", "N-N", "unseen")
THRESHOLD = 1.5


def relation_categories(train: NDArray[np.int32], n_relations: int) -> NDArray[np.int64]:
    """The index into `CATEGORIES` of every relation, ``[R]``.

    A side is "N" when a relation has more than 1.5 heads per tail (or tails per head) on average
    over distinct train triples; relations without train triples are "unseen".
    """
    distinct = np.unique(train, axis=0)
    triples = np.bincount(distinct[:, 1], minlength=n_relations)

    def per_relation(column: int) -> NDArray[np.int64]:
        ends = np.unique(distinct[:, [1, column]], axis=0)
        return np.bincount(ends[:, 0], minlength=n_relations)

    tails_per_head = triples / np.maximum(1, per_relation(0))
    heads_per_tail = triples / np.maximum(1, per_relation(2))
    category = 2 * (heads_per_tail > THRESHOLD) + (tails_per_head > THRESHOLD)
    return np.where(triples > 0, category, CATEGORIES.index("unseen"))
