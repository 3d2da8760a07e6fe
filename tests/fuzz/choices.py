"""Decisions of a generator of inputs, taken from bytes, and changes of bytes.

The same bytes give the same input, so that a fuzzer that changes bytes changes decisions.
"""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import TypeVar

T = TypeVar("T")


class Choices:
    """Decisions in the order of the bytes; after the last byte, all decisions are 0."""

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._position = 0

    def integer(self, count: int) -> int:
        """A number from 0 to ``count - 1``."""
        size = 1 if count <= 256 else 3
        part = self._data[self._position : self._position + size]
        self._position += size
        return int.from_bytes(part, "little") % count

    def pick(self, values: Sequence[T]) -> T:
        """One of the values."""
        return values[self.integer(len(values))]

    def chance(self, percent: int) -> bool:
        """True in about `percent` of 100 cases; False after the last byte."""
        return self.integer(100) >= 100 - percent


_BYTES = (0, 1, 2, 9, 10, 13, 32, 34, 44, 47, 92, 127, 128, 255)


def changed(data: bytes, other: bytes, source: random.Random, tokens: Sequence[bytes]) -> bytes:
    """One to four changes: bits, bytes, tokens, cuts, repetitions, splices with `other`."""
    content = bytearray(data)
    for _ in range(source.choice((1, 1, 2, 3, 4))):
        size = len(content)
        start = source.randrange(size + 1)
        kind = source.randrange(9)
        if kind == 0 and start < size:
            content[start] ^= 1 << source.randrange(8)
        elif kind == 1 and start < size:
            content[start] = source.choice(_BYTES)
        elif kind == 2 and tokens:
            content[start:start] = source.choice(tokens)
        elif kind == 3 and tokens:
            token = source.choice(tokens)
            content[start : start + len(token)] = token
        elif kind == 4:
            del content[start : start + source.choice((1, 2, 8, 64))]
        elif kind == 5:
            piece = content[start : start + source.choice((1, 8, 64, 256))]
            content[start:start] = piece * source.choice((1, 2, 5))
        elif kind == 6:
            cut = source.randrange(len(other) + 1)
            content[start:] = other[cut:]
        elif kind == 7:
            content[start : start + 4] = source.randbytes(source.randrange(5))
        elif kind == 8 and source.random() < 0.2:
            del content[start:]
    return bytes(content[: 1 << 16])
