"""Reader of OpenKE folders: ``entity2id.txt``, ``relation2id.txt`` and ``*2id.txt`` triples.

Rows of triples are ``head tail relation``, in this order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import SPLITS, Graph
from mmkgc_cli.kg.readers.id_rows import line_of_row, read_id_rows
from mmkgc_cli.kg.readers.lines import (
    FIX_EMPTY,
    FIX_LINE,
    check_count,
    parse_count,
    read_lines,
    require_folder,
)
from mmkgc_cli.kg.triples import Triples

COLUMNS = "head tail relation"


def read_openke(folder: Path, name: str) -> Graph:
    """Reads an OpenKE folder.

    Raises:
        DataError: with file and line, for anything that violates the format.
    """
    require_folder(folder)
    entities = read_vocabulary(folder / "entity2id.txt", "entity")
    relations = read_vocabulary(folder / "relation2id.txt", "relation")
    train, valid, test = (
        _read_split(folder / f"{split}2id.txt", len(entities), len(relations)) for split in SPLITS
    )
    return Graph(name, entities, relations, train, valid, test)


def read_vocabulary(path: Path, noun: str, *, id_first: bool = False) -> list[str]:
    """Reads ``name id`` lines, separated by a tab or the last blank, into a list ordered by id.

    Args:
        path: the file.
        noun: "entity" or "relation", for messages.
        id_first: lines are ``id name``, separated by a tab or the first blank.

    Raises:
        DataError: for a wrong count line, a repeated name or id, or ids with gaps.
    """
    count: int | None = None
    ids: dict[str, int] = {}
    line_by_id: dict[int, int] = {}
    for number, text in read_lines(path):
        if number == 1 and (count := parse_count(text)) is not None:
            continue
        delimiter = "\t" if "\t" in text else " "
        if id_first:
            id_text, separator, name = text.strip().partition(delimiter)
        else:
            name, separator, id_text = text.rstrip().rpartition(delimiter)
        name, value = name.strip(" "), parse_count(id_text)
        if not separator or value is None or not name:
            columns = f"id {noun}" if id_first else f"{noun} id"
            raise DataError(f"{path}:{number}: {text[:80]!r} is not '{columns}'", fix=FIX_LINE)
        if "\t" in name:
            raise DataError(
                f"{path}:{number}: the name {name!r} contains a tab",
                fix="remove the tab from the name",
            )
        if name in ids:
            raise DataError(
                f"{path}:{number}: {noun} {name!r} already has id {ids[name]} "
                f"(line {line_by_id[ids[name]]})",
                fix="remove one of the two lines",
            )
        if value in line_by_id:
            raise DataError(
                f"{path}:{number}: id {value} is already taken (line {line_by_id[value]})",
                fix="give each name an id of its own",
            )
        ids[name], line_by_id[value] = value, number
    check_count(path, count, len(ids), f"{noun} lines")
    if not ids:
        raise DataError(f"{path}: contains no {noun}", fix=f"add a line for each {noun}")
    names = [""] * len(ids)
    for name, value in ids.items():
        if value >= len(ids):
            raise DataError(
                f"{path}:{line_by_id[value]}: {noun} id {value} is outside 0..{len(ids) - 1}",
                fix="number the names from 0 without gaps",
            )
        names[value] = name
    return names


def _read_split(path: Path, n_entities: int, n_relations: int) -> Triples:
    rows = read_id_rows(path, COLUMNS, "triples")
    if len(rows) == 0 and path.name.startswith("train"):
        raise DataError(f"{path}: contains no triples", fix=FIX_EMPTY)
    for column, noun, bound in ((0, "entity", n_entities), (1, "entity", n_entities),
                                (2, "relation", n_relations)):  # fmt: skip
        bad = np.flatnonzero(rows[:, column] >= bound)
        if len(bad):
            value, line = int(rows[bad[0], column]), line_of_row(path, int(bad[0]))
            raise DataError(
                f"{path}:{line}: {noun} id {value} is outside 0..{bound - 1}",
                fix=_range_fix(rows, noun, n_entities, n_relations),
            )
    return rows[:, [0, 2, 1]].astype(np.int32)


def _range_fix(rows: NDArray[np.int64], noun: str, n_entities: int, n_relations: int) -> str:
    swapped = rows[:, 1].max() < n_relations and rows[:, 2].max() < n_entities
    if swapped and n_relations < n_entities:
        return "reorder the columns: these look like 'head relation tail', not 'head tail relation'"
    return f"correct the id, or add it to {noun}2id.txt"
