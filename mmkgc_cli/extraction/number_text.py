"""Numbers as a text, which MoCME gives to BERT."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.extraction.contract import Encoder
from mmkgc_cli.extraction.numeric_inputs import Numbers

_SEPARATORS = re.compile(r"[\s._]+")


class NumbersAsText(Encoder[Numbers]):
    """Encodes "attribute value; attribute value" with an encoder of texts."""

    def __init__(self, inner: Encoder[str]) -> None:
        self._inner = inner
        self.width, self.conditions = inner.width, inner.conditions
        self.about = dataclasses.replace(
            inner.about, preprocess=f"'attribute value; …' as text; {inner.about.preprocess}"
        )

    def admit(self, item: Numbers) -> None:
        """As the encoder of texts."""
        self._inner.admit(as_text(item))

    def encode(self, items: Sequence[Numbers]) -> NDArray[np.float32]:
        """Vectors float32 ``[n, width]``."""
        return self._inner.encode([as_text(item) for item in items])


def as_text(numbers: Numbers) -> str:
    """Values as they were written, after the words of the attribute."""
    return "; ".join(f"{_words(number.attribute)} {number.written}" for number in numbers)


def _words(attribute: str) -> str:
    """``<http://rdf.freebase.com/ns/people.person.height_meters>``: people person height meters."""
    last = re.split(r"[/#]", attribute.strip("<>"))[-1]
    return _SEPARATORS.sub(" ", last).strip() or attribute
