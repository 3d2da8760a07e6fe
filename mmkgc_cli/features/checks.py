"""Quality check of a feature store: suspicious rows, constant columns and vector norms."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.features.format import Floats, Mask
from mmkgc_cli.features.store import FeatureStore

_EXAMPLES = 3
# A row counts as filled with the mean when its distance from the mean is below this fraction of
# the mean distance: above the rounding of float16, far below the distance of a real feature.
_NEAR = 0.01
_LEAST_WIDTH = 8  # with fewer columns, rows are near the mean by chance


@dataclass
class SuspiciousRows:
    """Count of the rows with one problem, and the ids of the first few."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, ids: Sequence[str], rows: NDArray[np.int64]) -> None:
        """Adds rows to the count."""
        self.count += len(rows)
        room = _EXAMPLES - len(self.examples)
        self.examples += [ids[row] for row in rows[:room].tolist()]


@dataclass
class StoreCheck:
    """Result of `check_store`; all but `leftover` refer to rows that hold a vector."""

    not_finite: SuspiciousRows = field(default_factory=SuspiciousRows)
    zero: SuspiciousRows = field(default_factory=SuspiciousRows)
    # One value in every column, not zero.
    constant: SuspiciousRows = field(default_factory=SuspiciousRows)
    # Equal to an earlier row, not zero.
    duplicate: SuspiciousRows = field(default_factory=SuspiciousRows)
    mean_filled: SuspiciousRows = field(default_factory=SuspiciousRows)
    # Missing rows that are not zero.
    leftover: SuspiciousRows = field(default_factory=SuspiciousRows)
    groups: int = 0  # groups of equal rows
    largest_group: int = 0
    constant_columns: int = 0
    norms: dict[str, float] = field(default_factory=dict)  # min, mean and max over finite rows

    @property
    def is_valid(self) -> bool:
        """Whether the store can be used in training."""
        return not self.not_finite.count and not self.leftover.count

    def problems(self) -> dict[str, SuspiciousRows]:
        """The suspicious rows by the name of the problem."""
        return {k: v for k, v in vars(self).items() if isinstance(v, SuspiciousRows)}

    def as_object(self) -> dict[str, Any]:
        """The result as plain JSON."""
        plain = {k: v for k, v in vars(self).items() if not isinstance(v, SuspiciousRows)}
        return {**plain, **{k: vars(v) for k, v in self.problems().items()}, "sound": self.is_valid}


def check_store(store: FeatureStore) -> StoreCheck:
    """Verifies the checksums of a store and checks every row, in two passes.

    The second pass finds rows near the mean.

    Raises:
        DataError: the file is damaged.
    """
    store.verify()
    result = StoreCheck()
    digest_counts: dict[bytes, int] = {}  # occurrences by digest of a row
    total = np.zeros(store.width)
    n_total = 0
    lowest = np.full(store.width, np.inf)
    highest = np.full(store.width, -np.inf)
    norms: list[NDArray[np.float64]] = []
    for start, values in store.slabs():
        rows = np.arange(start, start + len(values))
        present = store.present[rows]
        result.leftover.add(store.ids, rows[~present & values.any(axis=1)])
        rows, values = rows[present], values[present].astype(np.float64)
        finite = np.isfinite(values).all(axis=1)
        result.not_finite.add(store.ids, rows[~finite])
        rows, values = rows[finite], values[finite]
        if not len(rows):
            continue
        norms.append(np.linalg.norm(values, axis=1))
        zero: Mask = np.asarray(~values.any(axis=1))
        constant: Mask = np.asarray((values == values[:, :1]).all(axis=1))
        constant = constant & ~zero if store.width > 1 else np.zeros(len(values), dtype=bool)
        result.zero.add(store.ids, rows[zero])
        result.constant.add(store.ids, rows[constant])
        result.duplicate.add(store.ids, rows[~zero & _repeated(values, ~zero, digest_counts)])
        typical = ~zero & ~constant
        total += values[typical].sum(axis=0)
        n_total += int(typical.sum())
        lowest = np.minimum(lowest, values.min(axis=0))
        highest = np.maximum(highest, values.max(axis=0))
    counts = [count for count in digest_counts.values() if count > 1]
    result.groups, result.largest_group = len(counts), max(counts, default=0)
    result.constant_columns = int((lowest == highest).sum())
    if norms:
        all_norms = np.concatenate(norms)
        result.norms = {"min": all_norms.min(), "mean": all_norms.mean(), "max": all_norms.max()}
        result.norms = {name: float(value) for name, value in result.norms.items()}
    if n_total > 2 and store.width >= _LEAST_WIDTH:
        _find_mean_filled(store, result, total / n_total)
    return result


def _repeated(values: Floats, included: Mask, digest_counts: dict[bytes, int]) -> Mask:
    """Rows among `included` that equal an earlier row; updates `digest_counts`."""
    result = np.zeros(len(values), dtype=bool)
    for i in np.flatnonzero(included).tolist():
        digest = hashlib.blake2b((values[i] + 0.0).tobytes(), digest_size=16).digest()  # -0 is 0
        result[i] = digest in digest_counts
        digest_counts[digest] = digest_counts.get(digest, 0) + 1
    return result


def _find_mean_filled(store: FeatureStore, result: StoreCheck, mean: NDArray[np.float64]) -> None:
    """Finds rows at the mean of all; rows filled with the mean of the others do not move it."""
    near: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    total, count = 0.0, 0
    for start, values in store.slabs():
        rows = np.arange(start, start + len(values))
        rows, values = rows[store.present[rows]], values[store.present[rows]].astype(np.float64)
        distance = np.linalg.norm(values - mean, axis=1)
        typical = np.isfinite(distance) & values.any(axis=1)
        total, count = total + float(distance[typical].sum()), count + int(typical.sum())
        near.append((rows[typical], distance[typical]))
    bound = _NEAR * total / max(1, count)
    for rows, distance in near:
        result.mean_filled.add(store.ids, rows[distance <= bound])
