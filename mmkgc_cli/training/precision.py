"""Precision of matrix products in a training step; tables, ops and losses stay in float32."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from typing import Any

import torch

from mmkgc_cli.errors import DataError
from mmkgc_cli.training.settings import Precision


def require_precision(precision: Precision, device: torch.device) -> None:
    """Checks that the device supports the precision.

    Raises:
        DataError: for tf32 and bf16 without CUDA.
    """
    if precision != "float32" and device.type != "cuda":
        raise DataError(
            f"training.precision={precision}: needs CUDA, and this training runs on the "
            f"{device.type.upper()}",
            fix="set training.precision to float32, or train on a machine with a GPU",
        )


@contextlib.contextmanager
def products(precision: Precision, device: torch.device) -> Iterator[None]:
    """Context in which float32 matrix products on a GPU use TF32, only for ``tf32``.

    Restores the global switches of torch at the end. Must include the backward pass.
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
        for switch, value in zip(switches, before, strict=True):
            switch.fp32_precision = value


def forward(
    precision: Precision, device: torch.device
) -> contextlib.AbstractContextManager[object]:
    """Context for scoring, in which ``bf16`` multiplies in bfloat16; weights stay float32."""
    if precision != "bf16":
        return contextlib.nullcontext()
    # Without the cache of casts, which a CUDA graph would reuse in later steps.
    return torch.autocast(device.type, torch.bfloat16, cache_enabled=False)
