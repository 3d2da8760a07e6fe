"""Loads the native library and reports the backend of each op and device."""

from __future__ import annotations

import contextlib
import functools
import importlib
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import torch

from mmkgc_cli import __version__

SWITCH = "MMKGC_NATIVE"
# Fused ops, which run as a scoring op and a loss on devices without a kernel for them.
COMPOSED = {"rotate_loss": "rotate_score", "sampled_loss": "sampled_score"}


@dataclass(frozen=True)
class NativeLibrary:
    """The state of ``mmkgc_cli._C``: its build information, or the reason why it is not used."""

    loaded: bool
    reason: str
    build: dict[str, str]


@functools.cache
def library() -> NativeLibrary:
    """Loads the native library once; never raises."""
    if os.environ.get(SWITCH, "1") == "0":
        return NativeLibrary(False, f"{SWITCH}=0 is set", {})
    try:
        module = importlib.import_module("mmkgc_cli._C")
    except ImportError as error:
        return NativeLibrary(False, _why_missing(error), {})
    build: dict[str, str] = module.build_info()
    if build["version"] != __version__:
        reason = f"built for mmkgc {build['version']}, not {__version__}: rebuild it"
        return NativeLibrary(False, reason, build)
    return NativeLibrary(True, "loaded", build)


def _why_missing(error: ImportError) -> str:
    report = Path(__file__).resolve().parent.parent / "_native_build.json"
    try:
        outcome = json.loads(report.read_text())
        if outcome["status"] != "built":
            return str(outcome["reason"])
    except (OSError, ValueError, KeyError):
        pass
    if isinstance(error, ModuleNotFoundError):
        return "not built: run `make build` or `pip install --no-build-isolation .`"
    return f"failed to load: {error}"


_disabled = False


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Runs all ops on their reference implementations, to compare the backends."""
    global _disabled
    before, _disabled = _disabled, True
    try:
        yield
    finally:
        _disabled = before


def has_kernel(op: str, device_type: str) -> bool:
    """Whether the loaded library has a kernel of `op` for ``cpu`` or ``cuda`` tensors."""
    return not _disabled and library().loaded and _is_registered(op, device_type)


@functools.cache
def _is_registered(op: str, device_type: str) -> bool:
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device_type)
    has: bool = key is not None and torch._C._dispatch_has_kernel_for_dispatch_key(
        f"mmkgc::{op}", key
    )
    return has


def backend_of(op: str, device_type: str) -> tuple[str, str]:
    """The backend of `op` on a device, ``native`` or ``reference``, and the reason."""
    if not library().loaded:
        return "reference", library().reason
    if has_kernel(op, device_type):
        return "native", "loaded"
    if op in COMPOSED and has_kernel(COMPOSED[op], device_type):
        return "native", f"as {COMPOSED[op]} and the loss"
    return "reference", f"no {device_type} kernel in this build"
