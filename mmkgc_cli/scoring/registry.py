"""Finds scorer plugins by name without importing the others."""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path

from mmkgc_cli.errors import MmkgcError, UsageError, nearest
from mmkgc_cli.scoring.contract import Scorer

PACKAGE = "mmkgc_scorers"


def _folder() -> Path:
    spec = importlib.util.find_spec(PACKAGE)
    if spec is None or not spec.submodule_search_locations:
        raise MmkgcError(f"the package {PACKAGE} is not installed; install mmkgc again")
    return Path(spec.submodule_search_locations[0])


def scorer_names() -> list[str]:
    """Names of all scorers, sorted; nothing is imported."""
    return sorted(p.stem for p in _folder().glob("*.py") if not p.stem.startswith("_"))


def load_scorer(name: str) -> type[Scorer]:
    """The scorer class of the plugin `name`.

    Raises:
        UsageError: when there is none of that name; lists the nearest.
    """
    if name not in scorer_names():
        raise UsageError(f"no scorer is called {name!r}; {nearest(name, scorer_names())}")
    module = importlib.import_module(f"{PACKAGE}.{name}")
    scorer: type[Scorer] = module.SCORER
    return scorer
