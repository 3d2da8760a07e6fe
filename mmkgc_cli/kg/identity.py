"""Identities of a graph that do not depend on the assignment of ids.

Each is the hexadecimal SHA-256 of names and triples in canonical form. Triples are hashed as
little-endian int32 ranks in the sorted vocabulary, which is equivalent to hashing sorted decoded
triples but needs no string per triple.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.kg.triples import Triples, rows_of_keys, triple_keys

Ranks = NDArray[np.int32]


def _canonical(names: Iterable[str], count: int) -> bytes:
    # Lengths come first, so that different lists of names never give the same bytes.
    encoded = (name.encode() for name in names)
    return b"%d\n" % count + b"".join(b"%d:%b" % (len(name), name) for name in encoded)


@dataclass(frozen=True)
class SortedNames:
    """A vocabulary in sorted order, from which identities are computed.

    Names are sorted by code point, which is also the order of their UTF-8 bytes.
    """

    names: Sequence[str]
    order: NDArray[np.int64]  # ids by name
    ranks: Ranks  # of each id among the sorted names
    canonical: bytes  # input of the hash

    @classmethod
    def from_names(cls, names: Sequence[str]) -> SortedNames:
        """Sorts a vocabulary."""
        order = np.array(sorted(range(len(names)), key=names.__getitem__), dtype=np.int64)
        ranks = np.empty(len(names), dtype=np.int32)
        ranks[order] = np.arange(len(names), dtype=np.int32)
        text = _canonical((names[i] for i in order.tolist()), len(names))
        return cls(names, order, ranks, text)

    def select(self, used: NDArray[np.bool_]) -> SortedNames:
        """The vocabulary of the used ids; the ranks of all others are undefined."""
        if used.all():
            return self
        kept = self.order[used[self.order]]
        ranks = np.zeros(len(self.ranks), dtype=np.int32)
        ranks[kept] = np.arange(len(kept), dtype=np.int32)
        text = _canonical((self.names[i] for i in kept.tolist()), len(kept))
        return SortedNames(self.names, kept, ranks, text)


def _hash_triples(
    digest: hashlib._Hash, triples: Triples, entities: Ranks, relations: Ranks
) -> None:
    rows = np.stack(
        [entities[triples[:, 0]], relations[triples[:, 1]], entities[triples[:, 2]]], axis=1
    )
    size = len(entities), len(relations)
    rows = rows_of_keys(np.sort(triple_keys(rows, *size)), *size)
    digest.update(f"{len(rows)}\n".encode())
    digest.update(np.ascontiguousarray(rows, dtype="<i4").data)


def entities_id(entities: SortedNames) -> str:
    """Identity of the set of entities in any order; graphs with the same one can share features."""
    return hashlib.sha256(b"mmkgc entities 1\n" + entities.canonical).hexdigest()


def order_id(entities: Sequence[str], relations: Sequence[str]) -> str:
    """Identity of the vocabulary in this order, which decides which weights fit row by row."""
    digest = hashlib.sha256(b"mmkgc order 1\n")
    digest.update(_canonical(entities, len(entities)))
    digest.update(_canonical(relations, len(relations)))
    return digest.hexdigest()


def train_id(entities: SortedNames, relations: SortedNames, train: Triples) -> str:
    """Identity of the multiset of decoded train triples.

    Names that do not occur in `train` are left out, so unused vocabulary does not change it.
    """
    digest = hashlib.sha256(b"mmkgc train 1\n")
    ranks = []
    for vocabulary, columns in ((entities, [0, 2]), (relations, [1])):
        used = np.zeros(len(vocabulary.names), dtype=bool)
        used[train[:, columns]] = True
        selected = vocabulary.select(used)
        digest.update(selected.canonical)
        ranks.append(selected.ranks)
    _hash_triples(digest, train, *ranks)
    return digest.hexdigest()


def fingerprint(entities: SortedNames, relations: SortedNames, splits: Sequence[Triples]) -> str:
    """Identity of the vocabulary and the splits, in the order train, valid, test."""
    digest = hashlib.sha256(b"mmkgc graph 1\n")
    digest.update(entities.canonical)
    digest.update(relations.canonical)
    for split in splits:
        _hash_triples(digest, split, entities.ranks, relations.ranks)
    return digest.hexdigest()
