"""The graph in memory: vocabulary, splits and provenance."""

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
# Cached properties that follow from the vocabulary alone, and those that the splits enter too.
_VOCABULARY_CACHE = ("sorted_entities", "sorted_relations", "entities_id", "order_id")
_SPLIT_CACHE = ("train_id", "fingerprint")


@dataclass(frozen=True)
class Provenance:
    """Where a graph comes from; empty strings where nobody said."""

    source: str = ""
    licence: str = ""
    citation: str = ""
    verified: bool = False  # the files had the checksums of datasets.toml
    notes: tuple[str, ...] = ()  # what was changed or left out on the way


@dataclass(frozen=True, eq=False)
class Graph:
    """A knowledge graph with its splits.

    `train`, `valid` and `test` are int32 ``[n, 3]`` as head, relation, tail. Entities and
    relations are named by position. Labels, where given, are for printing only.
    """

    name: str
    entities: Sequence[str]
    relations: Sequence[str]
    train: Triples
    valid: Triples
    test: Triples
    entity_labels: Sequence[str] | None = None
    relation_labels: Sequence[str] | None = None
    provenance: Provenance = field(default_factory=Provenance)

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
        """The entities in the order of their names."""
        return identity.SortedNames.of(self.entities)

    @functools.cached_property
    def sorted_relations(self) -> identity.SortedNames:
        """The relations in the order of their names."""
        return identity.SortedNames.of(self.relations)

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
        """Identity of the vocabulary in this order: which weights fit row by row."""
        return identity.order_id(self.entities, self.relations)

    def with_splits(self, train: Triples, valid: Triples, test: Triples) -> Graph:
        """The same vocabulary with other splits; what sorting it cost is kept."""
        return self._replace(_VOCABULARY_CACHE, train=train, valid=valid, test=test)

    def with_notes(self, *notes: str) -> Graph:
        """The same graph with more said of what was changed or left out on the way."""
        return self.with_provenance(
            dataclasses.replace(self.provenance, notes=(*self.provenance.notes, *notes))
        )

    def with_provenance(self, provenance: Provenance) -> Graph:
        """The same graph, from elsewhere."""
        return self._replace((*_VOCABULARY_CACHE, *_SPLIT_CACHE), provenance=provenance)

    def _replace(self, keep: Sequence[str], **changes: Any) -> Graph:
        """A copy with changes, and with the cached properties that they leave true."""
        other = dataclasses.replace(self, **changes)
        for name in keep:
            if name in self.__dict__:
                other.__dict__[name] = self.__dict__[name]
        return other

    def seen(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which entities and which relations occur in train."""
        return _occurring([self.train], len(self.entities), len(self.relations))

    def occurring(self) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
        """Which entities and which relations occur in any split."""
        return _occurring(list(self.splits.values()), len(self.entities), len(self.relations))

    def unseen(self) -> dict[str, int]:
        """How many valid and test triples have an entity or a relation that train lacks."""
        entities, relations = self.seen()

        def count(rows: Triples) -> int:
            seen = entities[rows[:, 0]] & relations[rows[:, 1]] & entities[rows[:, 2]]
            return int((~seen).sum())

        return {"valid": count(self.valid), "test": count(self.test)}

    def leaks(self) -> dict[str, int]:
        """How many rows of valid and test stand in a split that they should be disjoint from."""
        train, valid, test = (self.keys(split) for split in SPLITS)
        return {
            "valid_in_train": int(contained(valid, train).sum()),
            "valid_in_test": int(contained(valid, test).sum()),
            "test_in_train": int(contained(test, train).sum()),
        }

    def duplicates(self) -> dict[str, int]:
        """How many rows of each split repeat an earlier one."""
        return {
            split: len(rows) - len(distinct_keys(self.keys(split)))
            for split, rows in self.splits.items()
        }

    def keys(self, split: str) -> Keys:
        """One number a triple of a split, equal exactly where triples are (`triple_keys`)."""
        return triple_keys(self.splits[split], len(self.entities), len(self.relations))

    def decode(self, triple: Sequence[int] | NDArray[np.int32]) -> tuple[str, str, str]:
        """The names (labels, where there are any) of a head, relation, tail triple."""
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
