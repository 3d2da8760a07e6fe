"""Reader of OpenKE folders: ``entity2id.txt``, ``relation2id.txt`` and ``*2id.txt`` triples.

Rows of triples are ``head tail relation`` in this format, note the order.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import SPLITS, Graph
from mmkgc_cli.kg.readers.id_rows import line_of_row, read_id_rows
from mmkgc_cli.kg.readers.lines import check_count, parse_count, read_lines, require_folder
from mmkgc_cli.kg.triples import Triples

COLUMNS = "head tail relation"


def read_openke(folder: Path, name: str) -> Graph:
    """Reads an OpenKE folder.

    Raises:
        DataError: naming file and line, for anything that is not as the format says.
    """
    require_folder(folder)
    entities = read_vocabulary(folder / "entity2id.txt", "entity")
    relations = read_vocabulary(folder / "relation2id.txt", "relation")
    train, valid, test = (
        _read_split(folder / f"{split}2id.txt", len(entities), len(relations)) for split in SPLITS
    )
    return Graph(name, entities, relations, train, valid, test)


def read_vocabulary(path: Path, kind: str, id_first: bool = False) -> list[str]:
    """Reads ``name id`` lines (a tab or the last blank separates) into a list by id.

    With `id_first`, lines are ``id name`` and a tab or the first blank separates.

    Raises:
        DataError: for a wrong count line, a name or id given twice, or ids with gaps.
    """
    count: int | None = None
    ids: dict[str, int] = {}
    line_of: dict[int, int] = {}
    for number, text in read_lines(path):
        if number == 1 and (count := parse_count(text)) is not None:
            continue
        mark = "\t" if "\t" in text else " "
        if id_first:
            number_text, separator, name = text.strip().partition(mark)
        else:
            name, separator, number_text = text.rstrip().rpartition(mark)
        name, value = name.strip(" "), parse_count(number_text)
        if not separator or value is None or not name:
            order = f"id {kind}" if id_first else f"{kind} id"
            raise DataError(f"{path}:{number}: {text[:80]!r} is not '{order}'")
        if "\t" in name:
            raise DataError(f"{path}:{number}: the name {name!r} holds a tab")
        if name in ids:
            raise DataError(
                f"{path}:{number}: {kind} {name!r} already has id {ids[name]} "
                f"(line {line_of[ids[name]]})"
            )
        if value in line_of:
            raise DataError(f"{path}:{number}: id {value} is already taken (line {line_of[value]})")
        ids[name], line_of[value] = value, number
    check_count(path, count, len(ids), f"{kind} lines")
    if not ids:
        raise DataError(f"{path}: names no {kind}")
    names = [""] * len(ids)
    for name, value in ids.items():
        if value >= len(ids):
            raise DataError(
                f"{path}:{line_of[value]}: {kind} id {value} is outside 0..{len(ids) - 1}; "
                "ids must run from 0 without gaps"
            )
        names[value] = name
    return names


def _read_split(path: Path, n_entities: int, n_relations: int) -> Triples:
    rows = read_id_rows(path, COLUMNS, "triples")
    if len(rows) == 0 and path.name.startswith("train"):
        raise DataError(f"{path}: holds no triples")
    for column, kind, bound in ((0, "entity", n_entities), (1, "entity", n_entities),
                                (2, "relation", n_relations)):  # fmt: skip
        bad = np.flatnonzero(rows[:, column] >= bound)
        if len(bad):
            value, line = int(rows[bad[0], column]), line_of_row(path, int(bad[0]))
            raise DataError(
                f"{path}:{line}: {kind} id {value} is outside 0..{bound - 1}"
                + _order_hint(rows, n_entities, n_relations)
            )
    return rows[:, [0, 2, 1]].astype(np.int32)


def _order_hint(rows: NDArray[np.int64], n_entities: int, n_relations: int) -> str:
    fits = rows[:, 1].max() < n_relations and rows[:, 2].max() < n_entities
    if fits and n_relations < n_entities:
        return "; the rows look like 'head relation tail', but this format is 'head tail relation'"
    return ""
