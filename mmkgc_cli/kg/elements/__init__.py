"""The periodic table as a small multi-modal knowledge graph that is part of the package.

It contains elements, common compounds and minerals, and related people, places and concepts. Texts,
numbers and shells are separate modalities, each missing for some entities. `attributes.tsv` lists
the unit and the source of every number.
"""

from __future__ import annotations

import csv
from importlib.resources import files

__all__ = ["entity_labels", "numerics", "relation_labels", "shells", "texts", "triples"]


def _rows(name: str) -> list[list[str]]:
    """The rows of a table in the package, without the header."""
    table = files(__name__).joinpath(name).read_text(encoding="utf-8").splitlines()
    return list(csv.reader(table, delimiter="\t", quoting=csv.QUOTE_NONE))[1:]


def triples() -> list[tuple[str, str, str]]:
    """All (head, relation, tail) triples as ids, sorted and without duplicates."""
    return [(head, relation, tail) for head, relation, tail in _rows("triples.tsv")]


def entity_labels() -> dict[str, str]:
    """Labels by entity id, in file order: first the elements, by atomic number."""
    return {row[0]: row[1] for row in _rows("entities.tsv")}


def relation_labels() -> dict[str, str]:
    """Labels by relation id, in file order."""
    return {row[0]: row[1] for row in _rows("relations.tsv")}


def texts() -> dict[str, str]:
    """One-line texts by entity id, without entities that have no text."""
    return {row[0]: row[3] for row in _rows("entities.tsv") if row[3]}


def numerics() -> list[tuple[str, str, float]]:
    """All (entity, attribute, value) triples, in the units of `attributes.tsv`."""
    return [(entity, name, float(value)) for entity, name, value in _rows("numeric.tsv")]


def shells() -> dict[str, tuple[int, ...]]:
    """Electrons per shell by element id, innermost first, in the ground state of the free atom.

    Elements beyond lawrencium are omitted, because their configurations are only calculated.
    """
    return {row[0]: tuple(map(int, row[1].split())) for row in _rows("shells.tsv")}
