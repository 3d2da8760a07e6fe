"""Encoders of numbers: quantiles of attributes, and numbers as text for a text encoder."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import Encoder, EncoderMetadata, EncoderOptions, Skip
from mmkgc_cli.extraction.numeric_inputs import Numbers
from mmkgc_cli.text import counted

MIN_COUNT = 10
_SEPARATORS = re.compile(r"[\s._]+")


class Quantiles(Encoder[Numbers]):
    """Two columns for each attribute of at least `min_count` entities, in the order of names.

    The first half is the quantile of the entity's value among all values of the job: (values below
    + half of the equal values, itself included) / number of values. It is the mean if an entity
    has several values, and 0 if it has none. The second half is 1 if the value is missing, else 0.
    """

    def __init__(self, options: EncoderOptions) -> None:
        self._least = MIN_COUNT if options.min_count is None else options.min_count
        self._values: dict[str, NDArray[np.float64]] = {}
        self._column: dict[str, int] = {}

    def fit(self, items: Iterable[Numbers]) -> None:
        """Collects all values and selects the attributes.

        Raises:
            DataError: no attribute has enough entities.
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
                f"no attribute has numbers of {counted(self._least, 'entity')}; the largest count "
                f"is {most}",
                fix="lower --min-count",
            )
        self._values = {name: np.sort(np.array(values[name])) for name in kept}
        self._column = {name: column for column, name in enumerate(kept)}
        self.width = 2 * len(kept)
        self.notes = (
            f"columns: quantile, then whether it is missing, of {', '.join(kept)}",
            *self._rare(len(entities) - len(kept)),
        )
        self.metadata = EncoderMetadata(
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
        """Skips entities with rare attributes only, which have no column."""
        if not any(number.attribute in self._column for number in item):
            raise Skip(f"no attribute of at least {counted(self._least, 'entity')}")

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


class NumbersAsText(Encoder[Numbers]):
    """Encodes "attribute value; attribute value" with a text encoder, as MoCME does with BERT."""

    def __init__(self, text_encoder: Encoder[str]) -> None:
        self._text_encoder = text_encoder
        self.width, self.conditions = text_encoder.width, text_encoder.conditions
        metadata = text_encoder.metadata
        self.metadata = dataclasses.replace(
            metadata, preprocess=f"'attribute value; …' as text; {metadata.preprocess}"
        )

    def admit(self, item: Numbers) -> None:
        """Checks the text with the text encoder."""
        self._text_encoder.admit(as_text(item))

    def encode(self, items: Sequence[Numbers]) -> NDArray[np.float32]:
        """Vectors float32 ``[n, width]``."""
        return self._text_encoder.encode([as_text(item) for item in items])


def as_text(numbers: Numbers) -> str:
    """The attributes as words, each with its value as written in the file."""
    return "; ".join(f"{_words(number.attribute)} {number.written}" for number in numbers)


def _words(attribute: str) -> str:
    """``<http://rdf.freebase.com/ns/people.person.height_meters>``: people person height meters."""
    local_name = re.split(r"[/#]", attribute.strip("<>"))[-1]
    return _SEPARATORS.sub(" ", local_name).strip() or attribute
