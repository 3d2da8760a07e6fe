"""Finds the native library and says, per op and device, which path runs and why."""

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
# Ops that are others run one after the other, where they have no kernel of their own.
COMPOSED = {"rotate_loss": "rotate_score", "sampled_loss": "sampled_score"}


@dataclass(frozen=True)
class NativeLibrary:
    """What came of loading ``mmkgc_cli._C``: its build information, or why it is not used."""

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
        reason = f"built for mmkgc {build['version']}, this is {__version__}: build it again"
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
        return "not built: run `make build`, or `pip install --no-build-isolation .` again"
    return f"does not load: {error}"


_avoided = False


@contextlib.contextmanager
def without_kernels() -> Iterator[None]:
    """Everything runs on the references while it lasts, to hold one path against the other."""
    global _avoided
    before, _avoided = _avoided, True
    try:
        yield
    finally:
        _avoided = before


def has_kernel(op: str, device_type: str) -> bool:
    """Whether the loaded library holds a kernel of `op` for ``cpu`` or ``cuda`` tensors."""
    return not _avoided and library().loaded and _is_registered(op, device_type)


@functools.cache
def _is_registered(op: str, device_type: str) -> bool:
    key = {"cpu": "CPU", "cuda": "CUDA"}.get(device_type)
    has: bool = key is not None and torch._C._dispatch_has_kernel_for_dispatch_key(
        f"mmkgc::{op}", key
    )
    return has


def backend_of(op: str, device_type: str) -> tuple[str, str]:
    """Which path `op` takes on a device: ``("native" | "reference", why)``."""
    if not library().loaded:
        return "reference", library().reason
    if has_kernel(op, device_type):
        return "native", "loaded"
    if op in COMPOSED and has_kernel(COMPOSED[op], device_type):
        return "native", f"by {COMPOSED[op]} and the loss"
    return "reference", f"no {device_type} kernel in this build"
