"""The scorer contract, and the registry of scorer plugins."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from mmkgc_cli.scoring.registry import load_scorer, load_scorer_file

if TYPE_CHECKING:
    from mmkgc_cli.scoring.contract import Features, Scorer, ScorerConfig, Side

__all__ = [
    "Features",
    "Scorer",
    "ScorerConfig",
    "Side",
    "load_scorer",
    "load_scorer_file",
]


def __getattr__(name: str) -> Any:
    # The contract imports torch, which listing scorers does not need.
    if name in __all__:
        return getattr(importlib.import_module("mmkgc_cli.scoring.contract"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
