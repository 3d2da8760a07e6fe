"""Errors about plugins that violate the scorer contract: where, what was expected, what came."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

from torch import Tensor

from mmkgc_cli.errors import DataError


class ScorerFault(DataError):
    """A scorer plugin violates the contract."""


CONTRACT = "mmkgc_cli.scoring.contract"


def where(scorer: object, method: str) -> str:
    """``FILE: CLASS.METHOD`` of the plugin class that defines `method`, or that lacks it."""
    cls = scorer if isinstance(scorer, type) else type(scorer)
    # A missing method is missing from the plugin, not from the base class that calls it.
    owner = next((base for base in cls.__mro__ if method in vars(base)), cls)
    owner = cls if owner.__module__ == CONTRACT else owner
    try:
        file = inspect.getsourcefile(owner)
    except TypeError:
        file = None
    if file is None:
        return f"{owner.__name__}.{method}"
    path = os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
    return f"{path}: {owner.__name__}.{method}"


def fault(scorer: object, method: str, expected: str, got: str, *, fix: str) -> ScorerFault:
    """An error of one line: the method, the expected and the actual value, and the fix."""
    return ScorerFault(f"{where(scorer, method)}: expected {expected}, got {got}", fix=fix)


def shape(value: object) -> str:
    """Describes what a method returned: shape and dtype, length, or type."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
