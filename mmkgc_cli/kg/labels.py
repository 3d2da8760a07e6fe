"""Labels for printing: a table of names and what to call them."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.readers.lines import read_lines
from mmkgc_cli.text import counted


def with_labels(graph: Graph, path: Path, column: str | None = None) -> Graph:
    """Reads ``name<TAB>label`` rows and attaches them to entities and relations.

    Args:
        graph: whose names are looked up; a name without a label is its own.
        path: the table. Without `column` it has no header, and the second column is the label.
        column: which column of the header holds the label; the first one holds the name.

    Raises:
        DataError: with file and line, for rows without a label column, or when nothing matches.
    """
    labels, repeated = _read(path, column)
    entities, n_entities = _apply(graph.entities, graph.entity_labels, labels)
    relations, n_relations = _apply(graph.relations, graph.relation_labels, labels)
    if not n_entities and not n_relations:
        example = next(iter(labels), "")
        raise DataError(
            f"{path}: none of its {counted(len(labels), 'name')} is in the graph (the first is "
            f"{example[:80]!r}, an entity of the graph is {graph.entities[0]!r})"
        )
    note = (
        f"labels for {n_entities:,} of {len(graph.entities):,} entities and {n_relations:,} of "
        f"{len(graph.relations):,} relations"
    )
    if repeated:
        note += f"; {counted(repeated, 'further label')} for the same names left out"
    labelled = dataclasses.replace(graph, entity_labels=entities, relation_labels=relations)
    return labelled.with_notes(note)


def _read(path: Path, column: str | None) -> tuple[dict[str, str], int]:
    """Labels by name, and how many rows named something a second time."""
    labels: dict[str, str] = {}
    repeated = 0
    at = 1 if column is None else None
    for number, text in read_lines(path):
        fields = text.split("\t")
        if at is None:
            if column not in fields[1:]:
                raise DataError(
                    f"{path}:{number}: no column {column!r} after the first; the header has "
                    f"{', '.join(map(repr, fields))}"
                )
            at = fields.index(column, 1)
            continue
        if column is None and len(fields) != 2:
            advice = "; say which holds the label with --label-column" if len(fields) > 2 else ""
            raise DataError(
                f"{path}:{number}: {counted(len(fields), 'column')}, expected name and label"
                f"{advice} ({', '.join(map(repr, fields))[:200]})"
            )
        name, label = fields[0].strip(" "), fields[at].strip(" ") if at < len(fields) else ""
        if not name or not label:
            continue  # a table of several columns has gaps
        if name in labels:
            repeated += 1
        else:
            labels[name] = label
    return labels, repeated


def _apply(
    names: Sequence[str], before: Sequence[str] | None, labels: dict[str, str]
) -> tuple[list[str] | None, int]:
    found = sum(name in labels for name in names)
    if not found:
        return (None if before is None else list(before)), 0
    return [labels.get(name, old) for name, old in zip(names, before or names, strict=True)], found
