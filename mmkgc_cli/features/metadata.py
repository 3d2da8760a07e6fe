"""Metadata of a feature store: modality, encoder, graph, source and processing."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import UsageError
from mmkgc_cli.state.parsing import parse_json

_MODALITY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_AS_JSON = ("completion", "mask", "notes")
# Fields that must be equal for the vectors of two stores to be comparable.
SPACE = ("modality", "encoder", "revision", "preprocess", "pooling")


@dataclass(frozen=True)
class Metadata:
    """Provenance of the vectors of a store; empty strings where it is not known."""

    modality: str
    encoder: str = ""
    revision: str = ""
    preprocess: str = ""
    pooling: str = ""
    graph: str = ""  # name of the graph that the store was made for
    source: str = ""
    train_id: str = ""  # train split that the vectors or their mask depend on
    completion: Mapping[str, Any] = field(default_factory=dict)  # settings of the completion
    mask: Mapping[str, Any] = field(default_factory=dict)  # arguments of `masks.missing_mask`
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _MODALITY.fullmatch(self.modality):
            raise UsageError(
                f"modality {self.modality!r}: expected lower-case letters, digits, - and _",
                fix="choose a name such as 'image'; it becomes a file name",
            )

    def attributes(self) -> dict[str, str]:
        """The metadata as string attributes of an HDF5 file."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in _AS_JSON:
            values[name] = json.dumps(values[name], ensure_ascii=False, sort_keys=True)
        return values

    @classmethod
    def names(cls) -> list[str]:
        """The names of the attributes."""
        return [f.name for f in dataclasses.fields(cls)]

    @classmethod
    def from_attributes(cls, attributes: Mapping[str, Any], path: Path, *, fix: str) -> Metadata:
        """Reads the result of `attributes` from the file `path`; `fix` is what mends the file.

        Raises:
            DataError: an attribute is not valid JSON.
            KeyError, ValueError: an attribute is missing or invalid.
        """
        values: dict[str, Any] = {f.name: str(attributes[f.name]) for f in dataclasses.fields(cls)}
        for name in _AS_JSON:
            values[name] = parse_json(values[name], f"{path}: attribute {name!r}", fix=fix)
            if not isinstance(values[name], list if name == "notes" else dict):
                raise ValueError(f"attribute {name!r} is {type(values[name]).__name__}")
        values["notes"] = tuple(map(str, values["notes"]))
        return cls(**values)

    def as_object(self) -> dict[str, Any]:
        """The metadata as plain JSON."""
        return dataclasses.asdict(self)
