from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.extraction.contract import EncoderOptions
from mmkgc_cli.extraction.hashed_ngrams import HashedNgrams

MASK = (1 << 64) - 1


def by_definition(text: str) -> list[float]:
    """FNV-1a over code points and the final step of SplitMix64, one n-gram at a time."""
    small = "".join(chr(ord(c) + 32) if "A" <= c <= "Z" else c for c in f" {text} ")
    counts = [0] * 512
    for size in (3, 4, 5):
        for start in range(len(small) - size + 1):
            value = 0xCBF29CE484222325
            for c in small[start : start + size]:
                value = ((value ^ ord(c)) * 0x100000001B3) & MASK
            value = ((value ^ (value >> 30)) * 0xBF58476D1CE4E5B9) & MASK
            value = ((value ^ (value >> 27)) * 0x94D049BB133111EB) & MASK
            value ^= value >> 31
            counts[value % 512] += -1 if value >> 63 else 1
    length = math.sqrt(sum(count * count for count in counts))
    return [count / length if length else 0.0 for count in counts]


@given(st.lists(st.text(st.characters(exclude_categories=["Cs"])), min_size=1, max_size=4))
def test_vectors_are_those_of_the_definition_bit_by_bit(texts: list[str]) -> None:
    result = HashedNgrams(EncoderOptions()).encode(texts)
    assert result.dtype == np.float32
    assert np.array_equal(result, np.array([by_definition(text) for text in texts], np.float32))


def test_similar_texts_are_nearer_than_others() -> None:
    a, b, c = HashedNgrams(EncoderOptions()).encode(
        ["chemical element, a noble gas", "a noble gas and chemical element", "Zürich"]
    )
    assert a @ b > 0.6 > 0.2 > abs(a @ c)
    assert [float(x @ x) for x in (a, b, c)] == pytest.approx([1, 1, 1])
