"""What a feature store says of itself: modality, encoder, origin."""

from __future__ import annotations

import dataclasses
import json
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from mmkgc_cli.errors import UsageError

_MODALITY = re.compile(r"[a-z0-9][a-z0-9_-]{0,63}")
_AS_JSON = ("completion", "mask", "notes")
# What two stores must share for their rows to lie in one space.
SPACE = ("modality", "encoder", "revision", "preprocess", "pooling")


@dataclass(frozen=True)
class About:
    """Where the vectors of a store come from; empty where nobody said."""

    modality: str
    encoder: str = ""
    revision: str = ""
    preprocess: str = ""
    pooling: str = ""
    graph: str = ""  # the name of the graph that it was made for
    source: str = ""
    train_id: str = ""  # of the train split that vectors, or their mask, were made from
    completion: Mapping[str, Any] = field(default_factory=dict)  # how `generated` rows were made
    mask: Mapping[str, Any] = field(default_factory=dict)  # the arguments of `masks.missing`
    notes: tuple[str, ...] = ()

    def __post_init__(self) -> None:
        if not _MODALITY.fullmatch(self.modality):
            raise UsageError(
                f"modality {self.modality!r}: expected small letters, digits, - and _, as in "
                "'image'; it names a file"
            )

    def attributes(self) -> dict[str, str]:
        """As attributes of an HDF5 file, all of them texts."""
        values = {f.name: getattr(self, f.name) for f in dataclasses.fields(self)}
        for name in _AS_JSON:
            values[name] = json.dumps(values[name], ensure_ascii=False, sort_keys=True)
        return values

    @classmethod
    def of_attributes(cls, attributes: Mapping[str, Any]) -> About:
        """What `attributes` made.

        Raises:
            KeyError, ValueError: where one is missing or is not what it should be.
        """
        values: dict[str, Any] = {f.name: str(attributes[f.name]) for f in dataclasses.fields(cls)}
        for name in _AS_JSON:
            values[name] = json.loads(values[name])
        values["notes"] = tuple(values["notes"])
        return cls(**values)

    def as_object(self) -> dict[str, Any]:
        """As plain JSON."""
        return dataclasses.asdict(self)
