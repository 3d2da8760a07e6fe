"""Reads metadata of weights and states of checkpoints, without their tensors and without torch."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import safetensors

from mmkgc_cli.errors import DataError
from mmkgc_cli.state.parsing import parse_json

# All metadata are one entry, because safetensors writes entries in random order, and equal tensors
# must give equal files.
METADATA = "mmkgc"
CHECKSUM = "sha256"
# Name of the tensor of bytes with the state of a checkpoint, apart from its tensors.
STATE = "state.json"


def unflatten(plain: Any, load_tensor: Callable[[str], Any]) -> Any:
    """Restores a state from the JSON of `checkpoints.pack`; `load_tensor` maps names to tensors.

    Raises:
        ValueError: when the JSON does not come from `pack`.
    """
    if isinstance(plain, list):
        return [unflatten(value, load_tensor) for value in plain]
    if not isinstance(plain, dict):
        return plain
    ((tag, contents),) = plain.items()
    if tag == "tensor":
        return load_tensor(contents)
    if tag == "tuple":
        return tuple(unflatten(value, load_tensor) for value in contents)
    return {key: unflatten(value, load_tensor) for key, value in contents}


def read_metadata(path: Path) -> dict[str, str]:
    """The metadata of weights or of a checkpoint; also checks the length of the file.

    Raises:
        DataError: when the file is missing, truncated, or not written by mmkgc.
    """
    return _read(path, with_state=False)[0]


def read_state(path: Path) -> Any:
    """The state in a checkpoint, with None in place of tensors.

    Raises:
        DataError: when the file is missing, truncated, or not a checkpoint.
    """
    return _read(path, with_state=True)[1]


def _read(path: Path, *, with_state: bool) -> tuple[dict[str, str], Any]:
    if not path.is_file():
        raise DataError(f"{path}: no such file", fix="check the path, or train again")
    state = None
    try:
        with safetensors.safe_open(path, framework="np") as file:
            metadata = parse_json((file.metadata() or {}).get(METADATA, "{}"), f"{path}: metadata")
            if with_state:
                text = file.get_tensor(STATE).tobytes()
                state = unflatten(parse_json(text, f"{path}: {STATE}"), lambda name: None)
    except (safetensors.SafetensorError, OSError, ValueError, TypeError, RecursionError) as error:
        raise DataError(
            f"{path}: not a readable safetensors file: {error}",
            fix="restore the file, or train again",
        ) from error
    if not isinstance(metadata, dict) or CHECKSUM not in metadata:
        raise DataError(
            f"{path}: has no checksum, so mmkgc did not write it",
            fix="use a file of a run directory",
        )
    return metadata, state
