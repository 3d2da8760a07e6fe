"""Hashed counts of character n-grams: a text encoder without weights."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.extraction.contract import Encoder, EncoderMetadata, EncoderOptions

WIDTH = 512
SIZES = (3, 4, 5)
# FNV-1a (Fowler, Noll and Vo) over code points, then the final step of SplitMix64 (Steele et al.
# 2014), since the modulus only uses the low bits.
_OFFSET = np.uint64(0xCBF29CE484222325)
_PRIME = np.uint64(0x100000001B3)


class HashedNgrams(Encoder[str]):
    """Signed counts of n-grams of `SIZES` characters in `WIDTH` columns, normalised to length 1.

    Feature hashing (Weinberger et al. 2009): the column of an n-gram is its hash modulo `WIDTH`,
    and the highest bit is the sign. ASCII letters are lower-cased, and a space is added at both
    ends. All sums are exact integers, so that every machine gives the same bits.
    """

    metadata = EncoderMetadata(
        name="hashed-ngrams",
        revision="1",
        preprocess=f"ASCII in small letters, {SIZES[0]}- to {SIZES[-1]}-grams of characters",
        pooling="signed counts at length 1",
    )
    width = WIDTH

    def __init__(self, options: EncoderOptions) -> None:
        del options  # no option applies

    def encode(self, items: Sequence[str]) -> NDArray[np.float32]:
        """Vectors float32 ``[n, 512]``."""
        return np.stack([_counts(text) for text in items])


def _counts(text: str) -> NDArray[np.float32]:
    # Not str.lower: its result depends on the version of Unicode.
    padded = f" {text} ".encode("utf-32-le")
    points = np.frombuffer(padded, dtype="<u4").astype(np.uint64)
    capital = (points >= ord("A")) & (points <= ord("Z"))
    points = np.where(capital, points + np.uint64(32), points)
    total = np.zeros(WIDTH)
    for size in SIZES:
        if len(points) < size:
            continue
        hashes = _hashes(points, size)
        sign = np.where(hashes >> np.uint64(63), -1.0, 1.0)
        column = (hashes % np.uint64(WIDTH)).astype(np.int64)
        total += np.bincount(column, weights=sign, minlength=WIDTH)
    length = np.sqrt(total @ total)
    return np.asarray(total / length if length else total, dtype=np.float32)


def _hashes(points: NDArray[np.uint64], size: int) -> NDArray[np.uint64]:
    n = len(points) - size + 1
    hashes = np.full(n, _OFFSET)
    for i in range(size):
        hashes = (hashes ^ points[i : i + n]) * _PRIME
    for shift, factor in ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB)):
        hashes = (hashes ^ (hashes >> np.uint64(shift))) * np.uint64(factor)
    return np.asarray(hashes ^ (hashes >> np.uint64(31)), dtype=np.uint64)
