"""A plugin that breaks the contract: where, what was expected and what came."""

from __future__ import annotations

import inspect
import os
from pathlib import Path

from torch import Tensor

from mmkgc_cli.errors import DataError


class ScorerFault(DataError):
    """A plugin breaks the contract."""


CONTRACT = "mmkgc_cli.scoring.contract"


def where(scorer: object, method: str) -> str:
    """``FILE: CLASS.METHOD``, of the class of the plugin that defines the method."""
    of = scorer if isinstance(scorer, type) else type(scorer)
    # What is missing is missing from the plugin, not from the base that asks for it.
    owner = next((c for c in of.__mro__ if method in vars(c)), of)
    owner = of if owner.__module__ == CONTRACT else owner
    try:
        file = inspect.getsourcefile(owner)
    except TypeError:
        file = None
    if file is None:
        return f"{owner.__name__}.{method}"
    shown = os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
    return f"{shown}: {owner.__name__}.{method}"


def fault(scorer: object, method: str, expected: str, got: str) -> ScorerFault:
    """One line that says where the contract is broken and how."""
    return ScorerFault(f"{where(scorer, method)}: expected {expected}, got {got}")


def shape(value: object) -> str:
    """How a message names what a method gave."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__
