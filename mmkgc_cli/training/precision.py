"""How matrix products round in a training step; tables, ops and losses stay in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from mmkgc_cli.errors import DataError
from mmkgc_cli.training.settings import Precision


def require_precision(precision: Precision, device: torch.device) -> None:
    """Refuses what the device does not offer.

    Raises:
        DataError: for all but float32 without CUDA.
    """
    if precision != "float32" and device.type != "cuda":
        raise DataError(
            f"training.precision={precision}: needs CUDA, and this training runs on the "
            f"{device.type.upper()}; leave it at float32, or train on a machine with a GPU"
        )


@contextlib.contextmanager
def products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Whether products of float32 matrices on a GPU are made in TF32: only if asked for.

    The switches are the process's; they are put back at the end. Goes around backward as well.
    """
    if device.type != "cuda":
        yield
        return
    cudnn: Any = torch.backends.cudnn
    switches: list[Any] = [torch.backends.cuda.matmul, cudnn.conv, cudnn.rnn]
    before = [switch.fp32_precision for switch in switches]
    try:
        for switch in switches:
            switch.fp32_precision = "tf32" if precision == "tf32" else "ieee"
        yield
    finally:
        for switch, was in zip(switches, before, strict=True):
            switch.fp32_precision = was


def forward(
    precision: Precision, device: torch.device
) -> contextlib.AbstractContextManager[object]:
    """Around scoring: under bf16, dense modules multiply in bfloat16, weights staying float32."""
    if precision != "bf16":
        return contextlib.nullcontext()
    # Without the cache of casts, which a CUDA graph must not keep from step to step.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
