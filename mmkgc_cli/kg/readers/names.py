"""Names to ids for millions of fields at once, without a Python object a field.

Fields are hashed eight bytes at a time, hashes are sorted and looked up, and every match is then
held against the bytes, so that two names of one hash are never taken for each other.
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
# What to keep of a word of which only the first 0..8 bytes belong to the field.
_KEEP = np.array([(1 << (8 * n)) - 1 for n in range(_WORD + 1)], dtype=np.uint64)


class HashCollision(Exception):
    """Two names have one hash; read again with another salt."""


class NameTable:
    """A vocabulary that grows as names come, or is fixed.

    Ids are given in the order in which names first come.
    """

    def __init__(self, salt: int = 0) -> None:
        self._salt = salt
        self._data = np.zeros(1 << 16, dtype=np.uint8)  # the names end to end, then room
        self._ends = np.zeros(1, dtype=np.int64)  # name i is data[ends[i]:ends[i + 1]]
        self._hashes = np.empty(0, dtype=np.uint64)  # sorted
        self._ids = np.empty(0, dtype=np.int64)  # of the sorted hashes

    def __len__(self) -> int:
        return len(self._ends) - 1

    @classmethod
    def of(cls, names: Sequence[str], salt: int = 0) -> NameTable:
        """A table of distinct names, with their positions for ids."""
        table = cls(salt)
        table.ids_of(names)
        return table

    def ids_of(self, names: Sequence[str]) -> Ids:
        """The ids of names that are not empty; new names get new ids.

        Raises:
            HashCollision: when two names have one hash.
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

    def ids(self, data: Bytes, starts: Positions, ends: Positions, grow: bool = True) -> Ids:
        """The ids ``[n]`` of n fields of `data`; names not seen before get new ids.

        With `grow` off, they get `UNKNOWN` instead.

        Raises:
            HashCollision: when two names have one hash.
        """
        if not len(starts):
            return np.empty(0, dtype=np.int64)
        words = _words(np.concatenate([data, np.zeros(_WORD, dtype=np.uint8)]))
        lengths = ends - starts
        hashes = _hash(words, starts, lengths, self._salt)
        distinct, first, back = np.unique(hashes, return_index=True, return_inverse=True)
        chosen = first[back]
        _require_equal(words, starts, lengths, words, starts[chosen], lengths[chosen])
        at = np.searchsorted(self._hashes, distinct)
        known = np.zeros(len(distinct), dtype=bool)
        inside = at < len(self._hashes)
        known[inside] = self._hashes[at[inside]] == distinct[inside]
        ids = np.full(len(distinct), UNKNOWN, dtype=np.int64)
        ids[known] = self._ids[at[known]]
        if known.any():
            mine = ids[known]
            _require_equal(
                words, starts[first[known]], lengths[first[known]],
                _words(self._data), self._ends[mine], self._ends[mine + 1] - self._ends[mine],
            )  # fmt: skip
        if grow and not known.all():
            new = np.flatnonzero(~known)
            by_appearance = new[np.argsort(first[new])]
            ids[by_appearance] = len(self) + np.arange(len(new))
            self._append(data, starts[first[by_appearance]], lengths[first[by_appearance]])
            self._hashes = np.insert(self._hashes, at[new], distinct[new])
            self._ids = np.insert(self._ids, at[new], ids[new])
        return np.asarray(ids[back])

    def _append(self, data: Bytes, starts: Positions, lengths: Positions) -> None:
        ends = np.cumsum(lengths)
        # Positions of all bytes of all names: ranges laid end to end.
        positions = np.arange(ends[-1]) + np.repeat(starts - (ends - lengths), lengths)
        used = int(self._ends[-1])
        needed = used + len(positions) + _WORD
        if needed > len(self._data):
            room = np.zeros(2 * needed, dtype=np.uint8)
            room[:used] = self._data[:used]
            self._data = room
        self._data[used : used + len(positions)] = data[positions]
        self._ends = np.concatenate([self._ends, used + ends])


def _words(data: Bytes) -> Words:
    """The little-endian word that starts at each byte but the last seven; no copy."""
    return np.ndarray((len(data) - _WORD + 1,), dtype="<u8", buffer=data.data, strides=(1,))


def _walk(words: Words, starts: Positions, lengths: Positions) -> Iterator[tuple[Any, Words]]:
    """Yields, word by word, which fields still go on, and their bytes there."""
    live: Any = slice(None)
    for offset in range(0, int(lengths.max(initial=0)), _WORD):
        if offset:  # only those that went on before can go on: one long name costs itself alone
            before = np.flatnonzero(lengths > offset) if offset == _WORD else live
            live = before[lengths[before] > offset]
        keep = _KEEP[np.minimum(lengths[live] - offset, _WORD)]
        yield live, words[starts[live] + offset] & keep


def _hash(words: Words, starts: Positions, lengths: Positions, salt: int) -> Words:
    multiplier = _MULTIPLIERS[salt % len(_MULTIPLIERS)]
    hashes = (lengths.astype(np.uint64) + np.uint64(salt)) * _MULTIPLIERS[0]
    for live, word in _walk(words, starts, lengths):
        mixed = (hashes[live] ^ word) * multiplier
        hashes[live] = mixed ^ (mixed >> np.uint64(32))
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
    """Holds fields of one hash against each other, byte by byte."""
    if not np.array_equal(lengths, other_lengths):
        raise HashCollision
    walks = _walk(words, starts, lengths), _walk(other_words, other_starts, lengths)
    for (_, here), (_, there) in zip(*walks, strict=True):
        if not np.array_equal(here, there):
            raise HashCollision
