"""Ids of names for millions of fields at once, without a Python object per field.

Fields are hashed eight bytes at a time, and the hashes are looked up in a sorted array. The bytes
of every match are compared too, so that a hash collision never confuses two names.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.kg.readers.fields import Positions

Ids = NDArray[np.int64]
Bytes = NDArray[np.uint8]
Words = NDArray[np.uint64]

UNKNOWN = -1
_WORD = 8
_MULTIPLIERS = np.array(
    [0x9E3779B97F4A7C15, 0xC2B2AE3D27D4EB4F, 0xD6E8FEB86659FD93, 0xFF51AFD7ED558CCD],
    dtype=np.uint64,
)
# Masks of the first 0..8 bytes of a word.
_BYTE_MASKS = np.array([(1 << (8 * n)) - 1 for n in range(_WORD + 1)], dtype=np.uint64)


class HashCollision(Exception):
    """Two names have the same hash; read again with another salt."""


class NameTable:
    """A vocabulary, growing or fixed.

    Ids follow the order of the first occurrence of each name.
    """

    def __init__(self, salt: int = 0) -> None:
        self._salt = salt
        self._data = np.zeros(1 << 16, dtype=np.uint8)  # concatenated names and free space
        self._ends = np.zeros(1, dtype=np.int64)  # name i is data[ends[i]:ends[i + 1]]
        self._hashes = np.empty(0, dtype=np.uint64)  # sorted
        self._ids = np.empty(0, dtype=np.int64)  # ids of the sorted hashes

    def __len__(self) -> int:
        return len(self._ends) - 1

    @classmethod
    def from_names(cls, names: Sequence[str], salt: int = 0) -> NameTable:
        """A table of distinct names with their positions as ids."""
        table = cls(salt)
        table.ids_of(names)
        return table

    def ids_of(self, names: Sequence[str]) -> Ids:
        """The ids of non-empty names; new names get new ids.

        Raises:
            HashCollision: when two names have the same hash.
        """
        encoded = [name.encode() for name in names]
        ends = np.cumsum([0, *map(len, encoded)], dtype=np.int64)
        data = np.frombuffer(b"".join(encoded), dtype=np.uint8)
        return self.ids(data, ends[:-1], ends[1:])

    def names(self) -> list[str]:
        """All names by id."""
        data = self._data[: self._ends[-1]].tobytes()
        ends = self._ends.tolist()
        if data.isascii():
            text = data.decode("ascii")
            return [text[a:b] for a, b in itertools.pairwise(ends)]
        return [data[a:b].decode() for a, b in itertools.pairwise(ends)]

    def ids(self, data: Bytes, starts: Positions, ends: Positions, *, grow: bool = True) -> Ids:
        """The ids ``[n]`` of n fields of `data`; new names get new ids, or else `UNKNOWN`.

        Args:
            data: bytes that contain the fields.
            starts: first byte of each field, ``[n]``.
            ends: byte after each field, ``[n]``.
            grow: add new names to the table.

        Raises:
            HashCollision: when two names have the same hash.
        """
        if not len(starts):
            return np.empty(0, dtype=np.int64)
        words = _words(np.concatenate([data, np.zeros(_WORD, dtype=np.uint8)]))
        lengths = ends - starts
        hashes = _hash(words, starts, lengths, self._salt)
        distinct, first, inverse = np.unique(hashes, return_index=True, return_inverse=True)
        representatives = first[inverse]
        _require_equal(
            words, starts, lengths, words, starts[representatives], lengths[representatives]
        )
        positions = np.searchsorted(self._hashes, distinct)
        known = np.zeros(len(distinct), dtype=bool)
        valid = positions < len(self._hashes)
        known[valid] = self._hashes[positions[valid]] == distinct[valid]
        ids = np.full(len(distinct), UNKNOWN, dtype=np.int64)
        ids[known] = self._ids[positions[known]]
        if known.any():
            known_ids = ids[known]
            known_starts = self._ends[known_ids]
            _require_equal(
                words, starts[first[known]], lengths[first[known]],
                _words(self._data), known_starts, self._ends[known_ids + 1] - known_starts,
            )  # fmt: skip
        if grow and not known.all():
            new = np.flatnonzero(~known)
            by_appearance = new[np.argsort(first[new])]
            ids[by_appearance] = len(self) + np.arange(len(new))
            self._append(data, starts[first[by_appearance]], lengths[first[by_appearance]])
            self._hashes = np.insert(self._hashes, positions[new], distinct[new])
            self._ids = np.insert(self._ids, positions[new], ids[new])
        return np.asarray(ids[inverse])

    def _append(self, data: Bytes, starts: Positions, lengths: Positions) -> None:
        ends = np.cumsum(lengths)
        # Positions of all bytes of all names: the concatenation of their ranges.
        positions = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
        used = int(self._ends[-1])
        needed = used + len(positions) + _WORD
        if needed > len(self._data):
            larger = np.zeros(2 * needed, dtype=np.uint8)
            larger[:used] = self._data[:used]
            self._data = larger
        self._data[used : used + len(positions)] = data[positions]
        self._ends = np.concatenate([self._ends, used + ends])


def _words(data: Bytes) -> Words:
    """The little-endian word that starts at each byte but the last seven, without a copy."""
    return np.ndarray((len(data) - _WORD + 1,), dtype="<u8", buffer=data.data, strides=(1,))


def _walk(words: Words, starts: Positions, lengths: Positions) -> Iterator[tuple[Any, Words]]:
    """Yields for each word offset the indices of long enough fields, and their word there."""
    active: Any = slice(None)
    for offset in range(0, int(lengths.max(initial=0)), _WORD):
        if offset:  # filter the previous indices, so that one long name does not slow down others
            previous = np.flatnonzero(lengths > offset) if offset == _WORD else active
            active = previous[lengths[previous] > offset]
        masks = _BYTE_MASKS[np.minimum(lengths[active] - offset, _WORD)]
        yield active, words[starts[active] + offset] & masks


def _hash(words: Words, starts: Positions, lengths: Positions, salt: int) -> Words:
    multiplier = _MULTIPLIERS[salt % len(_MULTIPLIERS)]
    hashes = (lengths.astype(np.uint64) + np.uint64(salt)) * _MULTIPLIERS[0]
    for active, word in _walk(words, starts, lengths):
        mixed = (hashes[active] ^ word) * multiplier
        hashes[active] = mixed ^ (mixed >> np.uint64(32))
    hashes *= _MULTIPLIERS[1]
    return np.asarray(hashes ^ (hashes >> np.uint64(29)))


def _require_equal(
    words: Words,
    starts: Positions,
    lengths: Positions,
    other_words: Words,
    other_starts: Positions,
    other_lengths: Positions,
) -> None:
    """Compares the bytes of fields with equal hashes.

    Raises:
        HashCollision: when any pair of fields differs.
    """
    if not np.array_equal(lengths, other_lengths):
        raise HashCollision
    walks = _walk(words, starts, lengths), _walk(other_words, other_starts, lengths)
    for (_, word), (_, other_word) in zip(*walks, strict=True):
        if not np.array_equal(word, other_word):
            raise HashCollision
