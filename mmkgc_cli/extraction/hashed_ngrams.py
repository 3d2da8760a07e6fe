"""A text encoder without weights: hashed counts of character n-grams."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.extraction.contract import Encoder, EncoderAbout, EncoderOptions

WIDTH = 512
SIZES = (3, 4, 5)
# FNV-1a (Fowler, Noll and Vo) over code points, and the last step of SplitMix64 (Steele et al.
# 2014), since a remainder looks at few bits.
_OFFSET = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)


class HashedNgrams(Encoder[str]):
    """Signed counts of the n-grams of `SIZES` characters in `WIDTH` columns, at length 1.

    Letters of ASCII become small, a space goes to either end. The column of an n-gram is its hash
    modulo `WIDTH`, its sign the highest bit. All sums are of whole numbers, so that every machine
    and version gives the same bits (feature hashing: Weinberger et al. 2009).
    """

    about = EncoderAbout(
        name="hashed-ngrams",
        revision="1",
        preprocess=f"ASCII in small letters, {SIZES[0]}- to {SIZES[-1]}-grams of characters",
        pooling="signed counts at length 1",
    )
    width = WIDTH

    def __init__(self, options: EncoderOptions) -> None:
        del options  # there is nothing to choose

    def encode(self, items: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 ``[n, 512]``."""
        return np.stack([_counts(text) for text in items])


def _counts(text: str) -> NDArray[np.float32]:
    # Not str.lower, whose tables grow with each version of Unicode.
    padded = f" {text} ".encode("utf-32-le")
    points = np.frombuffer(padded, dtype="<u4").astype(np.uint64)
    capital = (points >= ord("A")) & (points <= ord("Z"))
    points = np.where(capital, points + np.uint64(32), points)
    total = np.zeros(WIDTH)
    for size in SIZES:
        if len(points) < size:
            continue
        found = _hashes(points, size)
        sign = np.where(found >> np.uint64(63), -1.0, 1.0)
        column = (found % np.uint64(WIDTH)).astype(np.int64)
        total += np.bincount(column, weights=sign, minlength=WIDTH)
    length = np.sqrt(total @ total)
    return np.asarray(total / length if length else total, dtype=np.float32)


def _hashes(points: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    n = len(points) - size + 1
    found = np.full(n, _OFFSET)
    for i in range(size):
        found = (found ^ points[i : i + n]) * _PRIME
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        found = (found ^ (found >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(found ^ (found >> np.uint64(31)), dtype=np.uint64)
