"""Graphs in memory: vocabulary, splits and provenance."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.kg import identity
from mmkgc_cli.kg.triples import Keys, Triples, contained, distinct_keys, triple_keys

SPLITS = ("train", "valid", "test")
# Cached properties that depend on the vocabulary alone, and on the splits as well.
_VOCABULARY_CACHE = ("sorted_entities", "sorted_relations", "entities_id", "order_id")
_SPLIT_CACHE = ("train_id", "fingerprint")


@dataclass(frozen=True)
class Provenance:
    """Source, licence and citation of a graph; empty strings when unknown."""

    source: str = ""
    licence: str = ""
    citation: str = ""
    verified: bool = False  # the files have the expected checksums
    notes: tuple[str, ...] = ()  # changes and omissions while reading and preparing


@dataclass(frozen=True, eq=False)
class Graph:
    """A knowledge graph with its splits.

    `train`, `valid` and `test` are int32 ``[n, 3]``: head, relation, tail. Ids are positions in
    `entities` and `relations`. Labels are for printing only.
    """

    name: str
    entities: Sequence[str]
    relations: Sequence[str]
    train: Triples
    valid: Triples
    test: Triples
    entity_labels: Sequence[str] | None = field(default=None, kw_only=True)
    relation_labels: Sequence[str] | None = field(default=None, kw_only=True)
    provenance: Provenance = field(default_factory=Provenance, kw_only=True)

    @property
    def splits(self) -> dict[str, Triples]:
        """The three splits by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @property
    def counts(self) -> dict[str, int]:
        """The five counts: entities, relations, train, valid, test."""
        return {
            "entities": len(self.entities),
            "relations": len(self.relations),
            **{name: len(rows) for name, rows in self.splits.items()},
        }

    @functools.cached_property
    def sorted_entities(self) -> identity.SortedNames:
        """The entities sorted by name."""
        return identity.SortedNames.from_names(self.entities)

    @functools.cached_property
    def sorted_relations(self) -> identity.SortedNames:
        """The relations sorted by name."""
        return identity.SortedNames.from_names(self.relations)

    @functools.cached_property
    def entities_id(self) -> str:
        """Identity of the entity set."""
        return identity.entities_id(self.sorted_entities)

    @functools.cached_property
    def train_id(self) -> str:
        """Identity of the decoded train triples."""
        return identity.train_id(self.sorted_entities, self.sorted_relations, self.train)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identity of vocabulary and splits."""
        splits = list(self.splits.values())
        return identity.fingerprint(self.sorted_entities, self.sorted_relations, splits)

    @functools.cached_property
    def order_id(self) -> str:
        """Identity of the vocabulary in this order, which decides which weights fit row by row."""
        return identity.order_id(self.entities, self.relations)

    def with_splits(self, train: Triples, valid: Triples, test: Triples) -> Graph:
        """The same vocabulary with other splits; cached sorted names are kept."""
        return self._replace(_VOCABULARY_CACHE, train=train, valid=valid, test=test)

    def with_notes(self, *notes: str) -> Graph:
        """The same graph with further notes in its provenance."""
        return self.with_provenance(
            dataclasses.replace(self.provenance, notes=(*self.provenance.notes, *notes))
        )

    def with_provenance(self, provenance: Provenance) -> Graph:
        """The same graph with another provenance."""
        return self._replace((*_VOCABULARY_CACHE, *_SPLIT_CACHE), provenance=provenance)

    def _replace(self, keep: Sequence[str], **changes: Any) -> Graph:
        """A copy with changes that keeps the cached properties named in `keep`."""
        copy = dataclasses.replace(self, **changes)
        for name in keep:
            if name in self.__dict__:
                copy.__dict__[name] = self.__dict__[name]
        return copy

    def seen(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks of the entities and of the relations that occur in train."""
        return _occurring([self.train], len(self.entities), len(self.relations))

    def occurring(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Masks of the entities and of the relations that occur in any split."""
        return _occurring(list(self.splits.values()), len(self.entities), len(self.relations))

    def unseen(self) -> dict[str, int]:
        """The number of valid and test triples with an entity or a relation unseen in train."""
        entities, relations = self.seen()

        def count(rows: Triples) -> int:
            seen = entities[rows[:, 0]] & relations[rows[:, 1]] & entities[rows[:, 2]]
            return int((~seen).sum())

        return {"valid": count(self.valid), "test": count(self.test)}

    def leaks(self) -> dict[str, int]:
        """The number of valid and test rows that another split contains too."""
        train, valid, test = (self.keys(split) for split in SPLITS)
        return {
            "valid_in_train": int(contained(valid, train).sum()),
            "valid_in_test": int(contained(valid, test).sum()),
            "test_in_train": int(contained(test, train).sum()),
        }

    def duplicates(self) -> dict[str, int]:
        """The number of rows of each split that repeat an earlier row."""
        return {
            split: len(rows) - len(distinct_keys(self.keys(split)))
            for split, rows in self.splits.items()
        }

    def keys(self, split: str) -> Keys:
        """One integer per triple of a split; equal for equal triples (see `triple_keys`)."""
        return triple_keys(self.splits[split], len(self.entities), len(self.relations))

    def decode(self, triple: Sequence[int] | NDArray[np.int32]) -> tuple[str, str, str]:
        """The labels, or else the names, of a head, relation, tail triple."""
        entities = self.entity_labels or self.entities
        relations = self.relation_labels or self.relations
        return entities[triple[0]], relations[triple[1]], entities[triple[2]]


def _occurring(
    splits: Sequence[Triples], n_entities: int, n_relations: int
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    entities, relations = np.zeros(n_entities, dtype=bool), np.zeros(n_relations, dtype=bool)
    for rows in splits:
        entities[rows[:, 0]] = entities[rows[:, 2]] = True
        relations[rows[:, 1]] = True
    return entities, relations
