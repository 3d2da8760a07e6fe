"""Finds sampler plugins by name: those of the package, and `./samplers/NAME.py`."""

from __future__ import annotations

import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.training.samplers import Sampler

BUILT_IN = {"filtered": "mmkgc_cli.training.negatives", "shared": "mmkgc_cli.training.shared"}
DEFAULT = "filtered"
FOLDER = Path("samplers")  # of the working directory


def sampler_names() -> list[str]:
    """Names of all samplers, sorted; nothing is imported."""
    own = {p.stem for p in FOLDER.glob("*.py") if not p.stem.startswith("_")}
    return sorted(own | BUILT_IN.keys())


def load_sampler(name: str) -> type[Sampler]:
    """The sampler class of the plugin `name`.

    Raises:
        UsageError: when there is none of that name; lists the nearest.
        DataError: when the plugin cannot be loaded, or has the name of a built-in one.
    """
    path = FOLDER / f"{name}.py"
    if name not in sampler_names():
        raise UsageError(
            f"no sampler is called {name!r}; {nearest(name, sampler_names())} (one of your own is "
            f"looked for in {FOLDER.absolute()})"
        )
    if name in BUILT_IN:
        if path.exists():
            raise DataError(f"{path}: {name!r} is the name of a built-in sampler; rename the file")
        sampler: type[Sampler] = importlib.import_module(BUILT_IN[name]).SAMPLER
        return sampler
    found = getattr(_module(name, path.absolute()), "SAMPLER", None)
    if not (isinstance(found, type) and issubclass(found, Sampler)):
        raise DataError(f"{path}: expected SAMPLER, a subclass of Sampler, got {found!r}")
    return found


def _module(name: str, path: Path) -> ModuleType:
    """The module in the file `path`, loaded once."""
    full_name = f"mmkgc_samplers_{name}"
    loaded = sys.modules.get(full_name)
    if loaded is not None and loaded.__file__ == str(path):
        return loaded
    spec = importlib.util.spec_from_file_location(full_name, path)
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[full_name] = module  # where the types of settings are looked up by name
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[full_name]
        raise DataError(f"{path}: cannot be loaded: {type(error).__name__}: {error}") from error
    return module
