"""Looks into weights and checkpoints without reading their tensors, and without torch."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors

from mmkgc_cli.errors import DataError

# Metadata are kept in one entry: the library writes entries in random order, and equal tensors
# are to give equal files.
METADATA = "mmkgc"
CHECKSUM = "sha256"
# The tensor of bytes that holds what is no tensor of a checkpoint.
STATE = "state.json"


def value_of(kept: Any, tensor_of: Callable[[str], Any]) -> Any:
    """What `checkpoints.pack` turned into plain JSON; `tensor_of` gives a tensor by its name.

    Raises:
        ValueError: when `pack` did not make it.
    """
    if isinstance(kept, list):
        return [value_of(v, tensor_of) for v in kept]
    if not isinstance(kept, dict):
        return kept
    ((kind, inner),) = kept.items()
    if kind == "tensor":
        return tensor_of(inner)
    if kind == "tuple":
        return tuple(value_of(v, tensor_of) for v in inner)
    return {key: value_of(v, tensor_of) for key, v in inner}


def peek_metadata(path: Path) -> dict[str, str]:
    """The metadata of weights or a checkpoint; that the file is as long as it should be is checked.

    Raises:
        DataError: when the file is missing, cut short, or not one of ours.
    """
    return _peek(path, with_state=False)[0]


def peek_state(path: Path) -> Any:
    """The state in a checkpoint, None in place of its tensors; one tensor of bytes is read.

    Raises:
        DataError: when the file is missing, cut short, or not a checkpoint.
    """
    return _peek(path, with_state=True)[1]


def _peek(path: Path, with_state: bool) -> tuple[dict[str, str], Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file")
    state = None
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            if with_state:
                text = file.get_tensor(STATE).tobytes().decode()
                state = value_of(json.loads(text), lambda name: None)
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{path}: not a readable safetensors file: {error}") from error
    if not isinstance(metadata, dict) or CHECKSUM not in metadata:
        raise DataError(f"{path}: holds no checksum, so this version of mmkgc did not write it")
    return metadata, state
