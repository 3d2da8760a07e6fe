"""What is in a feature store: rows that are no features, and how large the others are."""

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
# How near to the mean, in shares of the mean distance from it, a row is taken for a filled one:
# wider than what float16 rounds, far below what a feature would come to.
_NEAR = 0.01
_LEAST_WIDTH = 8  # where few columns are, some rows are near the mean by chance


@dataclass
class Finding:
    """Rows of one kind: how many, and the ids of the first few."""

    count: int = 0
    examples: list[str] = field(default_factory=list)

    def add(self, ids: Sequence[str], rows: NDArray[np.int64]) -> None:
        """Counts rows."""
        self.count += len(rows)
        room = _EXAMPLES - len(self.examples)
        self.examples += [ids[row] for row in rows[:room].tolist()]


@dataclass
class StoreCheck:
    """What `check_store` found, among rows that hold a vector but for `leftover`."""

    not_finite: Finding = field(default_factory=Finding)
    zero: Finding = field(default_factory=Finding)
    constant: Finding = field(default_factory=Finding)  # one value in every column, not zero
    duplicate: Finding = field(default_factory=Finding)  # equal to an earlier row, not zero
    mean_filled: Finding = field(default_factory=Finding)
    leftover: Finding = field(default_factory=Finding)  # missing rows that are not zero
    groups: int = 0  # of equal rows
    largest_group: int = 0
    constant_columns: int = 0
    norms: dict[str, float] = field(default_factory=dict)  # of finite rows: min, mean, max

    @property
    def sound(self) -> bool:
        """Whether a training can use the store as it is."""
        return not self.not_finite.count and not self.leftover.count

    def findings(self) -> dict[str, Finding]:
        """The findings by name."""
        return {k: v for k, v in vars(self).items() if isinstance(v, Finding)}

    def as_object(self) -> dict[str, Any]:
        """As plain JSON."""
        plain = {k: v for k, v in vars(self).items() if not isinstance(v, Finding)}
        return {**plain, **{k: vars(v) for k, v in self.findings().items()}, "sound": self.sound}


def check_store(store: FeatureStore) -> StoreCheck:
    """Verifies a store and looks at every row, twice: the second time for those near the mean.

    Raises:
        DataError: when the file is damaged.
    """
    store.verify()
    found = StoreCheck()
    seen: dict[bytes, int] = {}  # how often, by digest of a row
    total = np.zeros(store.width)
    n_total = 0
    lowest = np.full(store.width, np.inf)
    highest = np.full(store.width, -np.inf)
    norms: list[NDArray[np.float64]] = []
    for start, values in store.slabs():
        rows = np.arange(start, start + len(values))
        present = store.present[rows]
        found.leftover.add(store.ids, rows[~present & values.any(axis=1)])
        rows, values = rows[present], values[present].astype(np.float64)
        finite = np.isfinite(values).all(axis=1)
        found.not_finite.add(store.ids, rows[~finite])
        rows, values = rows[finite], values[finite]
        if not len(rows):
            continue
        norms.append(np.linalg.norm(values, axis=1))
        zero: Mask = np.asarray(~values.any(axis=1))
        constant: Mask = np.asarray((values == values[:, :1]).all(axis=1))
        constant = constant & ~zero if store.width > 1 else np.zeros(len(values), dtype=bool)
        found.zero.add(store.ids, rows[zero])
        found.constant.add(store.ids, rows[constant])
        found.duplicate.add(store.ids, rows[~zero & _repeated(values, ~zero, seen)])
        usual = ~zero & ~constant
        total += values[usual].sum(axis=0)
        n_total += int(usual.sum())
        lowest = np.minimum(lowest, values.min(axis=0))
        highest = np.maximum(highest, values.max(axis=0))
    counts = [count for count in seen.values() if count > 1]
    found.groups, found.largest_group = len(counts), max(counts, default=0)
    found.constant_columns = int((lowest == highest).sum())
    if norms:
        every = np.concatenate(norms)
        found.norms = {"min": every.min(), "mean": every.mean(), "max": every.max()}
        found.norms = {name: float(value) for name, value in found.norms.items()}
    if n_total > 2 and store.width >= _LEAST_WIDTH:
        _find_mean_filled(store, found, total / n_total)
    return found


def _repeated(values: Floats, among: Mask, seen: dict[bytes, int]) -> Mask:
    """Which rows `among` all are equal to one seen before; the others enter `seen`."""
    result = np.zeros(len(values), dtype=bool)
    for i in np.flatnonzero(among).tolist():
        digest = hashlib.blake2b((values[i] + 0.0).tobytes(), digest_size=16).digest()  # -0 is 0
        result[i] = digest in seen
        seen[digest] = seen.get(digest, 0) + 1
    return result


def _find_mean_filled(store: FeatureStore, found: StoreCheck, mean: NDArray[np.float64]) -> None:
    """Rows at the mean of all. Rows filled with the mean of the others do not move it."""
    near: list[tuple[NDArray[np.int64], NDArray[np.float64]]] = []
    total, count = 0.0, 0
    for start, values in store.slabs():
        rows = np.arange(start, start + len(values))
        rows, values = rows[store.present[rows]], values[store.present[rows]].astype(np.float64)
        distance = np.linalg.norm(values - mean, axis=1)
        usual = np.isfinite(distance) & values.any(axis=1)
        total, count = total + float(distance[usual].sum()), count + int(usual.sum())
        near.append((rows[usual], distance[usual]))
    bound = _NEAR * total / max(1, count)
    for rows, distance in near:
        found.mean_filled.add(store.ids, rows[distance <= bound])
