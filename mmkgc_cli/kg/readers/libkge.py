"""Reader of LibKGE folders: ``dataset.yaml`` and ``.del`` files of tab-separated ids.

``dataset.yaml`` lists the files under ``dataset.files.<key>.filename``, with nested or dotted keys,
as in https://github.com/uma-pi1/kge. Rows of triples are ``head relation tail``, rows of id maps
``id name``. ``entity_strings`` and ``relation_strings``, which are optional, become labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import SPLITS, Graph
from mmkgc_cli.kg.readers.id_rows import line_of_row, read_id_rows
from mmkgc_cli.kg.readers.lines import FIX_EMPTY, parse_count, read_lines, require_folder
from mmkgc_cli.kg.readers.openke import read_vocabulary
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.state.atomic import read_text

YAML = "dataset.yaml"
COLUMNS = "head relation tail"
_FIX_YAML = "copy dataset.yaml from the LibKGE folder, or choose another --format"


def read_libkge(folder: Path, name: str) -> Graph:
    """Reads a LibKGE folder.

    Raises:
        DataError: with file and line, for anything that violates the format.
    """
    require_folder(folder)
    description = _Description(folder)
    entities = read_vocabulary(description.file("entity_ids", "map"), "entity", id_first=True)
    relations = read_vocabulary(description.file("relation_ids", "map"), "relation", id_first=True)
    description.check_count("num_entities", len(entities))
    description.check_count("num_relations", len(relations))
    train, valid, test = (_read_split(description, split, entities, relations) for split in SPLITS)
    return Graph(
        name,
        entities,
        relations,
        train,
        valid,
        test,
        entity_labels=_labels(description, "entity_strings", entities),
        relation_labels=_labels(description, "relation_strings", relations),
    )


class _Description:
    """The contents of ``dataset.yaml``."""

    def __init__(self, folder: Path) -> None:
        import yaml

        self.folder = folder
        self.path = folder / YAML
        text = read_text(self.path)
        try:
            # The base loader creates only strings, lists and dictionaries.
            content = yaml.load(text, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            location = f"{self.path}:{mark.line + 1}" if mark else str(self.path)
            reason = " ".join(str(getattr(error, "problem", None) or "unreadable").split())
            raise DataError(
                f"{location}: not valid YAML: {reason}", fix="correct the YAML syntax"
            ) from None
        except RecursionError:
            raise DataError(f"{self.path}: nested too deeply", fix=_FIX_YAML) from None
        self._dataset = content.get("dataset") if isinstance(content, dict) else None
        if not isinstance(self._dataset, dict):
            raise DataError(f"{self.path}: has no section 'dataset'", fix=_FIX_YAML)

    def get(self, *keys: str) -> str | None:
        """The value at a path of keys, which may be nested, dotted or both."""
        value = _walk(self._dataset, keys)
        return value if isinstance(value, str) else None

    def file(self, key: str, expected_type: str) -> Path:
        """The path of the file at a key.

        Raises:
            DataError: when it is missing, of another type, or outside the folder.
        """
        path = self.file_or_none(key)
        if path is None:
            raise DataError(
                f"{self.path}: has no key files.{key}.filename",
                fix=f"add files.{key}.filename with the name of a file in the folder",
            )
        file_type = self.get("files", key, "type")
        if file_type not in (None, expected_type):
            raise DataError(
                f"{self.path}: files.{key}.type is {file_type!r}, expected {expected_type!r}",
                fix=f"provide a file of type {expected_type!r}",
            )
        return path

    def file_or_none(self, key: str) -> Path | None:
        """The path of the file at a key, or None when the key is missing."""
        name = self.get("files", key, "filename")
        if name is None:
            return None
        path = self.folder / name
        if not name or "\0" in name or not path.resolve().is_relative_to(self.folder.resolve()):
            raise DataError(
                f"{self.path}: files.{key}.filename {name!r} is outside the folder",
                fix="name a file in the folder",
            )
        return path

    def check_count(self, key: str, count: int) -> None:
        """Compares the count at a key, if present, with the actual one."""
        value = self.get(key)
        if value is not None and parse_count(value) != count:
            raise DataError(
                f"{self.path}: {key} is {value}, but there are {count}",
                fix=f"correct {key}, or restore the missing rows",
            )


def _walk(value: Any, keys: tuple[str, ...]) -> Any:
    if not keys:
        return value
    if not isinstance(value, Mapping):
        return None
    for n in range(len(keys), 0, -1):
        joined = ".".join(keys[:n])
        if joined in value and (inner := _walk(value[joined], keys[n:])) is not None:
            return inner
    return None


def _read_split(
    description: _Description, split: str, entities: list[str], relations: list[str]
) -> Triples:
    path = description.file(split, "triples")
    rows = read_id_rows(path, COLUMNS, "triples")
    if len(rows) == 0 and split == "train":
        raise DataError(f"{path}: contains no triples", fix=FIX_EMPTY)
    bounds = np.array([len(entities), len(relations), len(entities)])
    bad = np.flatnonzero((rows >= bounds).any(axis=1))
    if len(bad):
        row = int(bad[0])
        column = int(np.flatnonzero(rows[row] >= bounds)[0])
        noun = "relation" if column == 1 else "entity"
        raise DataError(
            f"{path}:{line_of_row(path, row)}: {noun} id {int(rows[row, column])} is outside "
            f"0..{bounds[column] - 1}",
            fix=f"correct the id, or add it to the file of {noun} ids",
        )
    description.check_count(f"files.{split}.size", len(rows))
    return rows.astype(np.int32)


def _labels(description: _Description, key: str, names: list[str]) -> list[str] | None:
    """Labels from a map by id (``map``) or by name (``idmap``); names without one keep their name.

    Rows for other names and empty labels are ignored, and the first of several labels counts:
    labels are for printing only, so they are no reason to refuse a graph.
    """
    path = description.file_or_none(key)
    if path is None:
        return None
    by_id = description.get("files", key, "type") == "map"
    positions = {str(i) if by_id else name: i for i, name in enumerate(names)}
    labels: list[str | None] = [None] * len(names)
    for number, text in read_lines(path):
        name, tab, label = text.partition("\t")
        if not tab:
            raise DataError(
                f"{path}:{number}: {text[:80]!r} is not '{key} label'",
                fix="separate the two columns with a tab",
            )
        position = positions.get(name)
        if position is not None and label.strip() and labels[position] is None:
            labels[position] = label.strip()
    return [label or name for label, name in zip(labels, names, strict=True)]
