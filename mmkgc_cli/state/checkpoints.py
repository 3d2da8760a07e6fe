"""Checkpoints: the complete state of a training, from which it resumes.

A checkpoint is one safetensors file, named after the number of steps: its tensors, and the rest of
the state as JSON in a tensor of bytes, with one checksum. It is written atomically before older
checkpoints are removed.
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
from mmkgc_cli.state import files
from mmkgc_cli.state.atomic import storage_errors, sweep
from mmkgc_cli.state.metadata import STATE, unflatten
from mmkgc_cli.state.parsing import parse_json
from mmkgc_cli.state.weights import load_weights, save_weights

SCHEMA = 1
_NAMES = "[0-9]*.safetensors"


def pack(state: Any) -> dict[str, Tensor]:
    """Converts nested dicts, lists, plain values and tensors to named tensors.

    Raises:
        TypeError: for values of other types.
    """
    tensors: dict[str, Tensor] = {}

    def plain(value: Any, name: str) -> Any:
        if isinstance(value, Tensor):
            tensors[name] = value
            return {"tensor": name}
        if isinstance(value, Mapping):  # as pairs, because JSON turns keys into strings
            return {"dict": [[key, plain(v, f"{name}/{key}")] for key, v in value.items()]}
        if isinstance(value, tuple):
            return {"tuple": [plain(v, f"{name}/{i}") for i, v in enumerate(value)]}
        if isinstance(value, list):
            return [plain(v, f"{name}/{i}") for i, v in enumerate(value)]
        if value is None or isinstance(value, bool | int | float | str):
            return value
        raise TypeError(f"{name}: cannot be saved in a checkpoint: {type(value).__name__}")

    text = json.dumps(plain(state, "state")).encode()
    tensors[STATE] = torch.frombuffer(bytearray(text), dtype=torch.uint8)
    return tensors


def unpack(tensors: Mapping[str, Tensor]) -> Any:
    """Reverses `pack`.

    Raises:
        ValueError: when the tensors do not come from `pack`.
    """
    if STATE not in tensors:
        raise ValueError("no state among the tensors")
    try:
        plain = parse_json(bytes(tensors[STATE].numpy()), STATE)
        return unflatten(plain, lambda name: tensors[name])
    except (DataError, TypeError, KeyError, RecursionError) as error:
        raise ValueError(f"the state is not one that was saved: {error!r}") from error


class Checkpoints:
    """The folder with the checkpoints of one run."""

    def __init__(self, folder: Path, keep: int) -> None:
        """Keeps the last `keep` checkpoints."""
        self.folder = folder
        self.keep = keep

    def save(self, step: int, state: Any) -> Path:
        """Writes the state after `step` steps in total, and removes old checkpoints.

        Raises:
            DataError: when the storage fails; older checkpoints are then unchanged.
        """
        # Temporary files of killed processes may have step numbers that do not recur.
        sweep(self.folder, _NAMES)
        path = self.folder / f"{step:012d}.safetensors"
        save_weights(path, pack(state), {"schema": str(SCHEMA)})
        for old in self._paths()[: -self.keep]:
            with contextlib.suppress(OSError):
                files.unlink(old)
        return path

    def latest(self) -> tuple[Path, Any] | None:
        """The newest undamaged checkpoint and its state; None when there are no checkpoints.

        Raises:
            DataError: when all checkpoints are damaged, or the newest has another schema.
        """
        paths = self._paths()
        for path in reversed(paths):
            try:
                tensors, metadata = load_weights(path)
                state = unpack(tensors) if metadata.get("schema") == str(SCHEMA) else None
            except (DataError, ValueError):
                continue  # an older one may be undamaged
            if metadata.get("schema") != str(SCHEMA):
                raise DataError(
                    f"{path}: expected checkpoint schema {SCHEMA}, got {metadata.get('schema')}",
                    fix="resume with the version of mmkgc in environment.json of the run",
                )
            return path, state
        if paths:
            raise DataError(
                f"{paths[-1]}: damaged, and so are all older checkpoints",
                fix=f"remove {self.folder} to start this run over",
            )
        return None

    def clear(self) -> None:
        """Removes all checkpoints."""
        sweep(self.folder, _NAMES)
        for path in self._paths():
            with contextlib.suppress(OSError):
                files.unlink(path)
        if self.folder.is_dir():
            with storage_errors(self.folder):  # they must not return with another run
                files.sync_folder(self.folder)

    def _paths(self) -> list[Path]:
        """Paths of the checkpoints, oldest first."""
        return sorted(self.folder.glob(_NAMES))
