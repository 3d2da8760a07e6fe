"""Where to compute."""

from __future__ import annotations

import torch

from mmkgc_cli.errors import MmkgcError


def pick_device(name: str, setting: str = "training.device=cuda") -> torch.device:
    """The device for ``auto``, ``cpu`` or ``cuda``; `setting` is what asked for it, for messages.

    Raises:
        MmkgcError: when CUDA is asked for and not there.
    """
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    if name == "cuda" and not torch.cuda.is_available():
        raise MmkgcError(f"{setting}: torch sees no CUDA device; see `mmkgc doctor`")
    return torch.device(name)
