from __future__ import annotations

import os
import re
from dataclasses import fields, is_dataclass
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli import ops
from mmkgc_cli.ops import _native

if os.environ.get("MMKGC_SANITIZE") == "1" and not ops.library().build.get("sanitizers"):
    # Set by `make sanitize`, which must not test another library.
    raise RuntimeError(f"MMKGC_SANITIZE=1, but {ops.__file__} has no sanitized native library")

if os.environ.get("MMKGC_EMULATE") == "1" and not ops.library().build.get("emulated"):
    # Set by `make emulate`.
    raise RuntimeError(f"MMKGC_EMULATE=1, but {ops.__file__} has no emulated native library")

native = pytest.mark.skipif(
    not ops.library().loaded, reason=f"no native library: {ops.library().reason}"
)

EMULATED = bool(ops.library().build.get("emulated"))
# The device of the CUDA kernels: a GPU, or the CPU in emulation (`make emulate`).
DEVICE = torch.device("cpu" if EMULATED or not torch.cuda.is_available() else "cuda")
if os.environ.get("MMKGC_GPU") == "1":
    # Set by `make gpu`, which must not skip tests for lack of kernels.
    for op in ops.OPS:
        assert ops.backend_of(op, "cuda")[0] == "native", f"{op}: {ops.backend_of(op, 'cuda')[1]}"
    assert DEVICE.type == "cuda", "torch sees no GPU"


def on_gpu(test: Any) -> Any:
    """Marks a test of the CUDA kernels."""
    there = EMULATED or DEVICE.type == "cuda"
    return pytest.mark.cuda(pytest.mark.skipif(not there, reason="there is no GPU")(test))


def to_device(x: Any, device: torch.device = DEVICE) -> Any:
    """Copies of the tensors in `x` on a device, as leaves with the same `requires_grad`."""
    if isinstance(x, Tensor):
        return x.detach().to(device, copy=True).requires_grad_(x.requires_grad)
    if isinstance(x, dict):
        return {key: to_device(value, device) for key, value in x.items()}
    if isinstance(x, list | tuple) and not hasattr(x, "_fields"):
        return type(x)(to_device(value, device) for value in x)
    if is_dataclass(x) and not isinstance(x, type):
        moved = {f.name: to_device(getattr(x, f.name), device) for f in fields(x)}
        return type(x)(**moved)
    return x


# Errors that CUDA kernels do not detect, since this would need another pass or reading on the host.
UNREAD = re.compile("runs? from|decreases|ascending|lists entity")


def skip_unread(backend: str, message: str) -> None:
    """Skips errors that only the host can detect if the kernels are those of a GPU."""
    if backend == "native" and EMULATED and UNREAD.search(message):
        pytest.skip("values on a GPU are not read by the host")


@pytest.fixture(params=[pytest.param("native", marks=native), "reference"])
def backend(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """The backend of the ops within the test."""
    if request.param == "reference":
        monkeypatch.setattr(_native, "has_kernel", lambda op, device: False)
    return str(request.param)
