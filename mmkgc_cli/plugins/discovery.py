"""Finds plugins by name in four places without importing any."""

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
    """All plugins of a kind by name, in the order of the search, and warnings about others.

    `taken` has, by name, a line for each file that is not used since the name was taken before;
    `missing` a line for each listed folder that does not exist.
    """

    plugins: dict[str, Plugin] = field(default_factory=dict)
    taken: dict[str, list[str]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)

    @property
    def problems(self) -> list[str]:
        """All warnings, one line each."""
        return [*(line for lines in self.taken.values() for line in lines), *self.missing]


def discover(kind: PluginKind[T]) -> Catalogue:
    """Finds all plugins of a kind; imports nothing and never fails because of a plugin."""
    catalogue = Catalogue()
    for plugin in _search(kind):
        first = catalogue.plugins.setdefault(plugin.name, plugin)
        if first is not plugin and not _is_copy(first, plugin):
            catalogue.taken.setdefault(plugin.name, []).append(
                f"{plugin.where}: not used, as the name {plugin.name!r} is taken by {first.where} "
                f"({first.origin}); rename one of them"
            )
    for folder in _listed_folders(kind):
        if not folder.is_dir():
            catalogue.missing.append(f"{kind.variable}: {folder}: no such folder")
    return catalogue


def find(kind: PluginKind[T], name: str) -> Plugin | None:
    """The first plugin of that name."""
    return next((plugin for plugin in _search(kind) if plugin.name == name), None)


def require(kind: PluginKind[T], name: str) -> Plugin:
    """The first plugin of that name.

    Raises:
        UsageError: when there is none; lists the nearest name.
    """
    plugin = find(kind, name)
    if plugin is None:
        known = discover(kind).plugins
        raise UsageError(f"no {kind.noun} is called {name!r}", fix=nearest(name, known))
    return plugin


def _search(kind: PluginKind[T]) -> Iterator[Plugin]:
    """Every plugin in the order of precedence, including names that are taken."""
    package = importlib.util.find_spec(kind.package)
    if package is None or not package.submodule_search_locations:
        raise MmkgcError(
            f"the package {kind.package} is not installed", fix="install mmkgc again: pip install ."
        )
    built_in = Path(package.submodule_search_locations[0])
    for file in _files(built_in):
        yield Plugin(file.stem, BUILT_IN, file, f"{kind.package}.{file.stem}")
    for entry in sorted(metadata.entry_points(group=kind.group), key=lambda entry: entry.name):
        origin = f"entry point of {entry.dist.name}" if entry.dist else "entry point"
        yield Plugin(entry.name, origin, module_file(entry.module), entry.module, entry.attr)
    # In a checkout, ./scorers is the built-in package; a folder may also be listed twice.
    seen = {os.path.realpath(built_in)}
    local = (Path(kind.folder), f"./{kind.folder}")
    listed = ((folder, kind.variable) for folder in _listed_folders(kind))
    for folder, origin in (local, *listed):
        if (real := os.path.realpath(folder)) in seen:
            continue
        seen.add(real)
        for file in _files(folder.absolute()):
            yield Plugin(file.stem, origin, file)


def _listed_folders(kind: PluginKind[T]) -> list[Path]:
    # Unlike pathlib, these raise neither for an unknown user nor for a loop of links.
    folders = os.environ.get(kind.variable, "").split(os.pathsep)
    return [Path(os.path.expanduser(folder)) for folder in folders if folder]  # noqa: PTH111


def is_plugin_name(name: str) -> bool:
    """Whether a file of that name is a plugin, not a helper or a test beside plugins."""
    return not name.startswith(("_", ".", "test_")) and name != "conftest"


def _files(folder: Path) -> list[Path]:
    return sorted(
        path for path in folder.glob("*.py") if is_plugin_name(path.stem) and path.is_file()
    )


def _is_copy(first: Plugin, second: Plugin) -> bool:
    """Whether two plugins are the same file or equal files, as in a checkout."""
    try:
        return first.file is not None and first.sha256() == second.sha256()
    except DataError:
        return False


def module_file(dotted: str) -> Path | None:
    """The file of a module, found without importing it or the packages that contain it."""
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
