"""Plugins found by name in four places, none of them imported."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path

from mmkgc_cli.errors import DataError, MmkgcError, UsageError, nearest
from mmkgc_cli.plugins.kinds import BUILT_IN, Plugin, PluginKind, T


@dataclass
class Catalogue:
    """All plugins of a kind by name, in the order of discovery, and what is in their way.

    `taken` says which files are not used since others had their name first.
    """

    plugins: dict[str, Plugin] = field(default_factory=dict)
    taken: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All of them, one line each."""
        return [*(line for lines in self.taken.values() for line in lines), *self.missing]


def discover(kind: PluginKind[T]) -> Catalogue:
    """Finds all plugins of a kind; nothing is imported, and nothing that is wrong is an error."""
    found = Catalogue()
    for plugin in _search(kind):
        first = found.plugins.setdefault(plugin.name, plugin)
        if first is not plugin and not _same(first, plugin):
            found.taken.setdefault(plugin.name, []).append(
                f"{plugin.where}: not used, as the name {plugin.name!r} is taken by {first.where} "
                f"({first.origin}); rename one of them"
            )
    for folder in _listed(kind):
        if not folder.is_dir():
            found.missing.append(f"{kind.variable}: {folder}: no such folder")
    return found


def find(kind: PluginKind[T], name: str) -> Plugin | None:
    """The plugin of that name; looks no further than to the first."""
    return next((plugin for plugin in _search(kind) if plugin.name == name), None)


def require(kind: PluginKind[T], name: str) -> Plugin:
    """The plugin of that name.

    Raises:
        UsageError: when there is none; lists the nearest.
    """
    plugin = find(kind, name)
    if plugin is None:
        known = discover(kind).plugins
        raise UsageError(f"no {kind.noun} is called {name!r}; {nearest(name, known)}")
    return plugin


def _search(kind: PluginKind[T]) -> Iterator[Plugin]:
    """Every plugin in the order of precedence, taken names included."""
    package = importlib.util.find_spec(kind.package)
    if package is None or not package.submodule_search_locations:
        raise MmkgcError(f"the package {kind.package} is not installed; install mmkgc again")
    built_in = Path(package.submodule_search_locations[0])
    for file in _files(built_in):
        yield Plugin(file.stem, BUILT_IN, file, f"{kind.package}.{file.stem}")
    for entry in sorted(metadata.entry_points(group=kind.group), key=lambda entry: entry.name):
        origin = f"entry point of {entry.dist.name}" if entry.dist else "entry point"
        file_ = _module_file(entry.module)
        yield Plugin(entry.name, origin, file_, entry.module, entry.attr)
    # In the checkout itself, ./scorers is the package; a folder may also be listed twice.
    seen = {os.path.realpath(built_in)}
    local = (Path(kind.folder), f"./{kind.folder}")
    for folder, origin in (local, *((folder, kind.variable) for folder in _listed(kind))):
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        for file in _files(folder.absolute()):
            yield Plugin(file.stem, origin, file)


def _listed(kind: PluginKind[T]) -> list[Path]:
    # Neither this nor `realpath` raises for a user who does not exist or links in a circle.
    listed = os.environ.get(kind.variable, "").split(os.pathsep)
    return [Path(os.path.expanduser(folder)) for folder in listed if folder]  # noqa: PTH111


def is_plugin_name(name: str) -> bool:
    """Whether a file of that name is a plugin: helpers and tests may lie beside them."""
    return not name.startswith(("_", ".", "test_")) and name != "conftest"


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.glob("*.py") if is_plugin_name(path.stem) and path.is_file()
    )


def _same(first: Plugin, second: Plugin) -> bool:
    """Whether two plugins are one: the same file twice, or a copy, as in a checkout."""
    try:
        return first.file is not None and first.sha256() == second.sha256()
    except DataError:
        return False


def _module_file(dotted: str) -> Path | None:
    """The file of a module, found without importing the packages it is in."""
    top, *rest = dotted.split(".")
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return None
    if spec is None:
        return None
    if not rest:
        return Path(spec.origin) if spec.origin else None
    for location in spec.submodule_search_locations or ():
        base = Path(location, *rest)
        for file in (base.with_suffix(".py"), base / "__init__.py"):
            if file.is_file():
                return file
    return None
