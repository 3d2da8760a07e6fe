"""Checkpoints: everything that a training needs to go on as if it had not been stopped.

A checkpoint is one safetensors file, named by the step it was made after: its tensors, and the
rest of the state as JSON in a tensor of bytes, all under one checksum. It is written atomically,
and only then older ones go.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.errors import DataError
from mmkgc_cli.state.atomic import sweep
from mmkgc_cli.state.metadata import STATE, value_of
from mmkgc_cli.state.weights import load_weights, save_weights

SCHEMA = 1
_NAMES = "[0-9]*.safetensors"


def pack(state: Any) -> dict[str, Tensor]:
    """Nested dicts, lists, numbers, strings and tensors as named tensors alone.

    Raises:
        TypeError: for anything else.
    """
    tensors: dict[str, Tensor] = {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            tensors[name] = value
            return {"tensor": name}
        if isinstance(value, Mapping):  # as pairs: JSON would turn keys into strings
            return {"dict": [[key, plain(v, f"{name}/{key}")] for key, v in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [plain(v, f"{name}/{i}") for i, v in enumerate(value)]}
        if isinstance(value, list):
            return [plain(v, f"{name}/{i}") for i, v in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"{name}: cannot be kept in a checkpoint: {type(value).__name__}")

    text = json.dumps(plain(state, "state")).encode()
    tensors[STATE] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return tensors


def unpack(tensors: Mapping[str, Tensor]) -> Any:
    """What `pack` was given.

    Raises:
        ValueError: when these tensors were not made by `pack`.
    """
    if STATE not in tensors:
        raise ValueError("no state among the tensors")
    kept = json.loads(bytes(tensors[STATE].numpy()).decode())
    return value_of(kept, lambda name: tensors[name])


class Checkpoints:
    """The checkpoints of one run, in a folder of their own."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Keeps the last `keep` of them."""
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state: Any) -> Path:
        """Writes `state` as it is after `step` steps in all, and drops what is too old.

        Raises:
            DataError: when the storage refuses; the checkpoints before this one are then whole.
        """
        # Half-written ones of killed trainings are named by steps that may not come again.
        sweep(self.folder, _NAMES)
        path = self.folder / f"{step:012d}.safetensors"
        save_weights(path, pack(state), {"schema": str(SCHEMA)})
        for old in self._paths()[: -self.keep]:
            with contextlib.suppress(OSError):
                old.unlink()
        return path

    def latest(self) -> tuple[Path, Any] | None:
        """The newest whole checkpoint and its state; None where there is none at all.

        Raises:
            DataError: when there are some, but none is whole, or the newest is of another version.
        """
        paths = self._paths()
        for path in reversed(paths):
            try:
                tensors, metadata = load_weights(path)
            except DataError:
                continue  # the one before may be whole
            if metadata.get("schema") != str(SCHEMA):
                raise DataError(
                    f"{path}: a checkpoint of schema {metadata.get('schema')}, this version reads "
                    f"{SCHEMA}; resume with the version that wrote it"
                )
            return path, unpack(tensors)
        if paths:
            raise DataError(
                f"{paths[-1]}: damaged, and no older checkpoint is whole; remove {self.folder} to "
                "start this run over"
            )
        return None

    def clear(self) -> None:
        """Removes all of them."""
        sweep(self.folder, _NAMES)
        for path in self._paths():
            with contextlib.suppress(OSError):
                path.unlink()

    def _paths(self) -> list[Path]:
        """Oldest first."""
        return sorted(self.folder.glob(_NAMES))
