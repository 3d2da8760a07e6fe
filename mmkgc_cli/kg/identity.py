"""Identities of a graph that do not depend on how ids were dealt out.

All three are SHA-256 over names and triples in canonical form, hexadecimal. Triples are hashed as
little-endian int32 ranks in the sorted vocabulary, which says the same as hashing sorted decoded
triples but needs no string per triple.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray


def _hash_names(digest: hashlib._Hash, names: Sequence[str]) -> None:
    # Length first, so that no choice of names can run into one another.
    digest.update(f"{len(names)}\n".encode())
    for name in names:
        encoded = name.encode()
        digest.update(f"{len(encoded)}:".encode() + encoded)


def _ranks(names: Sequence[str]) -> NDArray[np.int32]:
    """The position of each name in the sorted list."""
    order = np.array(sorted(range(len(names)), key=lambda i: names[i].encode()), dtype=np.int64)
    ranks = np.empty(len(names), dtype=np.int32)
    ranks[order] = np.arange(len(names), dtype=np.int32)
    return ranks


def _hash_triples(
    digest: hashlib._Hash,
    triples: NDArray[np.int32],
    entity_ranks: NDArray[np.int32],
    relation_ranks: NDArray[np.int32],
) -> None:
    rows = np.stack(
        [entity_ranks[triples[:, 0]], relation_ranks[triples[:, 1]], entity_ranks[triples[:, 2]]],
        axis=1,
    )
    rows = rows[np.lexsort((rows[:, 2], rows[:, 1], rows[:, 0]))]
    digest.update(f"{len(rows)}\n".encode())
    digest.update(np.ascontiguousarray(rows, dtype="<i4").data)


def entities_id(entities: Sequence[str]) -> str:
    """Identity of the set of entities, whatever their order: who may share features."""
    digest = hashlib.sha256(b"mmkgc entities 1\n")
    _hash_names(digest, sorted(entities, key=str.encode))
    return digest.hexdigest()


def order_id(entities: Sequence[str], relations: Sequence[str]) -> str:
    """Identity of the vocabulary *in this order*: which weights fit row by row."""
    digest = hashlib.sha256(b"mmkgc order 1\n")
    _hash_names(digest, entities)
    _hash_names(digest, relations)
    return digest.hexdigest()


def train_id(entities: Sequence[str], relations: Sequence[str], train: NDArray[np.int32]) -> str:
    """Identity of the multiset of decoded train triples.

    Only names that occur in `train` enter, so unused vocabulary does not change it.
    """
    digest = hashlib.sha256(b"mmkgc train 1\n")
    ranks = []
    for names, used in (
        (entities, np.unique(train[:, [0, 2]])),
        (relations, np.unique(train[:, 1])),
    ):
        kept = [names[i] for i in used]
        _hash_names(digest, sorted(kept, key=str.encode))
        table = np.zeros(len(names), dtype=np.int32)
        table[used] = _ranks(kept)
        ranks.append(table)
    _hash_triples(digest, train, *ranks)
    return digest.hexdigest()


def fingerprint(
    entities: Sequence[str],
    relations: Sequence[str],
    splits: Sequence[NDArray[np.int32]],
) -> str:
    """Identity of everything that decides a result: vocabulary and the splits, in their order."""
    digest = hashlib.sha256(b"mmkgc graph 1\n")
    _hash_names(digest, sorted(entities, key=str.encode))
    _hash_names(digest, sorted(relations, key=str.encode))
    ranks = _ranks(entities), _ranks(relations)
    for split in splits:
        _hash_triples(digest, split, *ranks)
    return digest.hexdigest()
