"""Relation categories 1-1, 1-N, N-1, N-N, as Bordes et al. (2013, section 4.3) define them."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.kg.triples import Triples, distinct_keys, rows_of_keys, triple_keys

CATEGORIES = ("1-1", "1-N", "N-1", "N-N", "unseen")
THRESHOLD = 1.5


def relation_categories(train: Triples, n_entities: int, n_relations: int) -> NDArray[np.int64]:
    """The category of each relation as an index into `CATEGORIES`, ``[R]``.

    A side is "N" when the distinct train triples of a relation have on average more than 1.5 heads
    per tail (or tails per head). Relations without train triples are "unseen".
    """
    keys = distinct_keys(triple_keys(train, n_entities, n_relations))
    distinct = rows_of_keys(keys, n_entities, n_relations)
    triples = np.bincount(distinct[:, 1], minlength=n_relations)

    def per_relation(column: int) -> NDArray[np.int64]:
        ends = distinct_keys(distinct[:, 1].astype(np.int64) * n_entities + distinct[:, column])
        return np.bincount(ends // n_entities, minlength=n_relations)

    tails_per_head = triples / np.maximum(1, per_relation(0))
    heads_per_tail = triples / np.maximum(1, per_relation(2))
    category = 2 * (heads_per_tail > THRESHOLD) + (tails_per_head > THRESHOLD)
    return np.where(triples > 0, category, CATEGORIES.index("unseen"))
