"""Numbers as their place among all values of the attribute, and what is missing."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import Encoder, EncoderAbout, EncoderOptions, Skip
from mmkgc_cli.extraction.numeric_inputs import Numbers
from mmkgc_cli.text import counted

MIN_COUNT = 10


class Quantiles(Encoder[Numbers]):
    """Columns for the attributes that at least `min_count` entities have, in the order of names.

    First, for each, the quantile of the entity's value: (values below + half of those equal, itself
    among them) / all values of the job; the mean where an entity has several; 0 where it has none.
    Then, for each, 1 where it has none, and else 0.
    """

    def __init__(self, options: EncoderOptions) -> None:
        self._least = MIN_COUNT if options.min_count is None else options.min_count
        self._values: dict[str, NDArray[np.float64]] = {}
        self._column: dict[str, int] = {}

    def fit(self, items: Iterable[Numbers]) -> None:
        """Looks at all values.

        Raises:
            DataError: when no attribute has enough entities.
        """
        values: dict[str, list[float]] = {}
        entities: dict[str, int] = {}
        for numbers in items:
            for number in numbers:
                values.setdefault(number.attribute, []).append(number.value)
            for attribute in {number.attribute for number in numbers}:
                entities[attribute] = entities.get(attribute, 0) + 1
        kept = sorted(name for name, count in entities.items() if count >= self._least)
        if not kept:
            most = max(entities.values(), default=0)
            raise DataError(
                f"no attribute has numbers of {counted(self._least, 'entity')}, the most is "
                f"{most}; lower --min-count"
            )
        self._values = {name: np.sort(np.array(values[name])) for name in kept}
        self._column = {name: column for column, name in enumerate(kept)}
        self.width = 2 * len(kept)
        self.notes = (
            f"columns: quantile, then whether it is missing, of {', '.join(kept)}",
            *self._rare(len(entities) - len(kept)),
        )
        self.about = EncoderAbout(
            name="quantiles",
            revision="1",
            preprocess=f"attributes of at least {counted(self._least, 'entity')}",
            pooling="mean over values of an attribute",
        )

    def _rare(self, count: int) -> tuple[str, ...]:
        if not count:
            return ()
        return (f"{counted(count, 'attribute')} of fewer than {self._least} entities left out",)

    def admit(self, item: Numbers) -> None:
        """Skips entities whose attributes are all too rare to have a column."""
        if not any(number.attribute in self._column for number in item):
            raise Skip(f"no attribute that at least {counted(self._least, 'entity')} have")

    def encode(self, items: Sequence[Numbers]) -> NDArray[np.float32]:
        """Vectors float32 ``[n, 2 * attributes]``."""
        m = len(self._column)
        total, count = np.zeros((len(items), m)), np.zeros((len(items), m))
        for row, numbers in enumerate(items):
            for number in numbers:
                column = self._column.get(number.attribute)
                if column is not None:
                    values = self._values[number.attribute]
                    below = int(np.searchsorted(values, number.value, "left"))
                    through = int(np.searchsorted(values, number.value, "right"))
                    total[row, column] += (below + through) / (2 * len(values))
                    count[row, column] += 1
        missing = count == 0
        quantile = total / np.maximum(count, 1)
        return np.concatenate([quantile, missing], axis=1, dtype=np.float32)
