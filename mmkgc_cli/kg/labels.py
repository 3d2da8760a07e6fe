"""Labels for printing, read from a table of names and labels."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.readers.lines import read_lines
from mmkgc_cli.text import counted


def with_labels(graph: Graph, path: Path, column: str | None = None) -> Graph:
    """Reads ``name<TAB>label`` rows and attaches the labels to entities and relations.

    Args:
        graph: the graph; an entity or relation without a label keeps its name.
        path: the table. Without `column` it has no header, and the second column is the label.
        column: the column of the header that contains the label; the first one is the name.

    Raises:
        DataError: with file and line, for rows without a label column, or when no name matches.
    """
    labels, repeated = _read(path, column)
    entities, n_entities = _apply(graph.entities, graph.entity_labels, labels)
    relations, n_relations = _apply(graph.relations, graph.relation_labels, labels)
    if not n_entities and not n_relations:
        example = next(iter(labels), "")
        raise DataError(
            f"{path}: none of its {counted(len(labels), 'name')} is in the graph (the first is "
            f"{example[:80]!r}, an entity of the graph is {graph.entities[0]!r})",
            fix="pass --labels a table with the names of the graph in its first column",
        )
    note = (
        f"labels for {n_entities:,} of {len(graph.entities):,} entities and {n_relations:,} of "
        f"{len(graph.relations):,} relations"
    )
    if repeated:
        note += f"; {counted(repeated, 'further label')} for the same names ignored"
    labelled = dataclasses.replace(graph, entity_labels=entities, relation_labels=relations)
    return labelled.with_notes(note)


def _read(path: Path, column: str | None) -> tuple[dict[str, str], int]:
    """The labels by name, and the number of rows that repeat a name."""
    labels: dict[str, str] = {}
    repeated = 0
    position = 1 if column is None else None
    for number, text in read_lines(path):
        fields = text.split("\t")
        if position is None:
            if column not in fields[1:]:
                raise DataError(
                    f"{path}:{number}: no column {column!r} after the first",
                    fix=f"pass --label-column one of: {', '.join(map(repr, fields[1:]))[:200]}"
                    if len(fields) > 1
                    else "pass --labels a table with tab-separated columns",
                )
            position = fields.index(column, 1)
            continue
        if column is None and len(fields) != 2:
            raise DataError(
                f"{path}:{number}: {counted(len(fields), 'column')}, expected name and label "
                f"({', '.join(map(repr, fields))[:200]})",
                fix="add a header and pass --label-column NAME"
                if len(fields) > 2
                else "separate name and label with a tab",
            )
        name = fields[0].strip(" ")
        label = fields[position].strip(" ") if position < len(fields) else ""
        if not name or not label:
            continue  # tables of several columns may have empty cells
        if name in labels:
            repeated += 1
        else:
            labels[name] = label
    return labels, repeated


def _apply(
    names: Sequence[str], old_labels: Sequence[str] | None, labels: dict[str, str]
) -> tuple[list[str] | None, int]:
    """The labels of all names, and the number of names with a new label."""
    count = sum(name in labels for name in names)
    if not count:
        return (None if old_labels is None else list(old_labels)), 0
    old = old_labels or names
    return [labels.get(name, label) for name, label in zip(names, old, strict=True)], count
