"""Weights on disk: safetensors files with a checksum."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from pathlib import Path

import safetensors
import safetensors.torch
import torch
from torch import Tensor

from mmkgc_cli.errors import DataError
from mmkgc_cli.state.atomic import write_bytes
from mmkgc_cli.state.metadata import CHECKSUM, METADATA


def checksum(tensors: Mapping[str, Tensor]) -> str:
    """SHA-256 over names, dtypes, shapes and bytes, in name order; hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(tensors):
        tensor = tensors[name].detach().cpu().contiguous()
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.view(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def save_weights(path: Path, tensors: Mapping[str, Tensor], metadata: Mapping[str, str]) -> str:
    """Writes `tensors` atomically and returns their checksum."""
    dense = {name: t.detach().cpu().contiguous() for name, t in tensors.items()}
    digest = checksum(dense)
    entry = json.dumps({**metadata, CHECKSUM: digest}, sort_keys=True)
    data = safetensors.torch.save(dense, {METADATA: entry})
    write_bytes(path, data)
    return digest


def load_weights(path: Path) -> tuple[dict[str, Tensor], dict[str, str]]:
    """Reads tensors and metadata, and verifies the checksum.

    Raises:
        DataError: when the file is missing, damaged, or not written by mmkgc.
    """
    if not path.is_file():
        raise DataError(
            f"{path}: no such file", fix="finish the run first: mmkgc train --resume RUN"
        )
    try:
        with safetensors.safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {}).get(METADATA, "{}"))
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (safetensors.SafetensorError, OSError, ValueError, RecursionError) as error:
        raise DataError(
            f"{path}: not a readable safetensors file: {error}",
            fix="restore the file, or train again",
        ) from error
    if not isinstance(metadata, dict) or CHECKSUM not in metadata:
        raise DataError(
            f"{path}: has no checksum, so mmkgc did not write it",
            fix="use a file of a run directory",
        )
    if metadata[CHECKSUM] != checksum(tensors):
        raise DataError(f"{path}: the weights do not match their checksum", fix="train again")
    return tensors, metadata
