"""The device to compute on."""

from __future__ import annotations

import torch

from mmkgc_cli.errors import MmkgcError


def pick_device(name: str, setting: str = "training.device=cuda") -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``; error messages name `setting`.

    Raises:
        MmkgcError: for ``cuda`` without a CUDA device.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise MmkgcError(
            f"{setting}: torch sees no CUDA device", fix="use cpu or auto, or run `mmkgc doctor`"
        )
    return torch.device(name)
