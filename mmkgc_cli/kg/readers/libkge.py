"""Reader of LibKGE folders: ``dataset.yaml`` and ``.del`` files of tab-separated ids.

``dataset.yaml`` names the files under ``dataset.files.<key>.filename``, nested or with dots, as
https://github.com/uma-pi1/kge writes it. Rows of triples are ``head relation tail``; maps of ids
are ``id name``. ``entity_strings`` and ``relation_strings``, where there are any, become labels.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import SPLITS, Graph
from mmkgc_cli.kg.readers.id_rows import line_of_row, read_id_rows
from mmkgc_cli.kg.readers.lines import parse_count, read_lines, require_folder
from mmkgc_cli.kg.readers.openke import read_vocabulary
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.state.atomic import read_text

YAML = "dataset.yaml"
COLUMNS = "head relation tail"


def read_libkge(folder: Path, name: str) -> Graph:
    """Reads a LibKGE folder.

    Raises:
        DataError: naming file and line, for anything that is not as the format says.
    """
    require_folder(folder)
    about = _About(folder)
    entities = read_vocabulary(about.file("entity_ids", "map"), "entity", id_first=True)
    relations = read_vocabulary(about.file("relation_ids", "map"), "relation", id_first=True)
    about.hold_count("num_entities", len(entities))
    about.hold_count("num_relations", len(relations))
    train, valid, test = (_read_split(about, split, entities, relations) for split in SPLITS)
    return Graph(
        name,
        entities,
        relations,
        train,
        valid,
        test,
        _labels(about, "entity_strings", entities),
        _labels(about, "relation_strings", relations),
    )


class _About:
    """What ``dataset.yaml`` says."""

    def __init__(self, folder: Path) -> None:
        import yaml

        self.folder = folder
        self.path = folder / YAML
        text = read_text(self.path)
        try:
            # The base loader makes nothing but strings, lists and dictionaries.
            content = yaml.load(text, Loader=yaml.BaseLoader)
        except yaml.YAMLError as error:
            mark = getattr(error, "problem_mark", None)
            where = f"{self.path}:{mark.line + 1}" if mark else str(self.path)
            reason = getattr(error, "problem", None) or "unreadable"
            raise DataError(f"{where}: not valid YAML: {' '.join(str(reason).split())}") from None
        except RecursionError:
            raise DataError(f"{self.path}: nested too deeply") from None
        self._dataset = content.get("dataset") if isinstance(content, dict) else None
        if not isinstance(self._dataset, dict):
            raise DataError(f"{self.path}: has no section 'dataset'")

    def get(self, *keys: str) -> str | None:
        """A value by its keys, nested in any way or joined by dots."""
        value = _walk(self._dataset, keys)
        return value if isinstance(value, str) else None

    def file(self, key: str, expected_type: str) -> Path:
        """The file of a key.

        Raises:
            DataError: when it is not named, of another type, or outside the folder.
        """
        path = self.file_or_none(key)
        if path is None:
            raise DataError(f"{self.path}: names no file as files.{key}.filename")
        found = self.get("files", key, "type")
        if found not in (None, expected_type):
            raise DataError(
                f"{self.path}: files.{key}.type is {found!r}, expected {expected_type!r}"
            )
        return path

    def file_or_none(self, key: str) -> Path | None:
        name = self.get("files", key, "filename")
        if name is None:
            return None
        path = self.folder / name
        if not name or "\0" in name or not path.resolve().is_relative_to(self.folder.resolve()):
            raise DataError(f"{self.path}: files.{key}.filename {name!r} leaves the folder")
        return path

    def hold_count(self, key: str, found: int) -> None:
        """Holds a count against what was found, where it is given."""
        value = self.get(key)
        if value is not None and parse_count(value) != found:
            raise DataError(f"{self.path}: {key} is {value}, but there are {found}")


def _walk(value: Any, keys: tuple[str, ...]) -> Any:
    if not keys:
        return value
    if not isinstance(value, Mapping):
        return None
    for n in range(len(keys), 0, -1):
        joined = ".".join(keys[:n])
        if joined in value and (found := _walk(value[joined], keys[n:])) is not None:
            return found
    return None


def _read_split(about: _About, split: str, entities: list[str], relations: list[str]) -> Triples:
    path = about.file(split, "triples")
    rows = read_id_rows(path, COLUMNS, "triples")
    if len(rows) == 0 and split == "train":
        raise DataError(f"{path}: holds no triples")
    bounds = np.array([len(entities), len(relations), len(entities)])
    bad = np.flatnonzero((rows >= bounds).any(axis=1))
    if len(bad):
        at = int(bad[0])
        column = int(np.flatnonzero(rows[at] >= bounds)[0])
        kind = "relation" if column == 1 else "entity"
        raise DataError(
            f"{path}:{line_of_row(path, at)}: {kind} id {int(rows[at, column])} is outside "
            f"0..{bounds[column] - 1}"
        )
    about.hold_count(f"files.{split}.size", len(rows))
    return rows.astype(np.int32)


def _labels(about: _About, key: str, names: list[str]) -> list[str] | None:
    """Labels from a map by id (``map``) or by name (``idmap``); names where there is none.

    Rows for other names and empty labels are left out, and the first of several labels is taken:
    labels are for printing, no reason to refuse a graph.
    """
    path = about.file_or_none(key)
    if path is None:
        return None
    by_id = about.get("files", key, "type") == "map"
    at = {str(i) if by_id else name: i for i, name in enumerate(names)}
    labels: list[str | None] = [None] * len(names)
    for number, text in read_lines(path):
        name, tab, label = text.partition("\t")
        if not tab:
            raise DataError(f"{path}:{number}: {text[:80]!r} is not '{key} label'")
        found = at.get(name)
        if found is not None and label.strip() and labels[found] is None:
            labels[found] = label.strip()
    return [label or name for label, name in zip(labels, names, strict=True)]
