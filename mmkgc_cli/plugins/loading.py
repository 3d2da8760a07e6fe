"""Loads a plugin: runs its file, and holds the class in it against what the core will call."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from pathlib import Path
from types import ModuleType

from mmkgc_cli.errors import DataError
from mmkgc_cli.plugins.discovery import require
from mmkgc_cli.plugins.kinds import Plugin, PluginKind, T
from mmkgc_cli.plugins.source import import_failure, line_of
from mmkgc_cli.plugins.tracebacks import remember


def load(kind: PluginKind[T], name: str) -> type[T]:
    """The class of the plugin `name`; no other plugin is imported.

    Raises:
        UsageError: when there is none of that name; lists the nearest.
        DataError: when it is broken: file and line, member, expected and got.
    """
    return load_plugin(kind, require(kind, name))


def load_file(kind: PluginKind[T], file: Path) -> type[T]:
    """The class of the plugin in `file`, wherever that is.

    Raises:
        DataError: as `load`.
    """
    return load_plugin(kind, Plugin(file.stem, str(file.parent), file.absolute()))


def load_plugin(kind: PluginKind[T], plugin: Plugin) -> type[T]:
    """The class of a plugin that was found.

    Raises:
        DataError: as `load`.
    """
    source = b"" if plugin.module else plugin.read()
    remember(plugin)
    try:
        # A plugin that prints must not end up in a command's output.
        with contextlib.redirect_stdout(sys.stderr):
            module = _import(plugin, source)
    except (Exception, SystemExit) as error:
        raise DataError(import_failure(plugin, error)) from error
    attribute = plugin.attribute or kind.attribute
    base = kind.base()
    expected = f"expected a subclass of {base.__module__}.{base.__qualname__}"
    if not hasattr(module, attribute):
        raise DataError(
            f"{plugin.where}: {attribute}: {expected}, got nothing; end the file with "
            f"{attribute} = YourClass"
        )
    value = getattr(module, attribute)
    if not (isinstance(value, type) and issubclass(value, base)) or value is base:
        line = line_of(plugin, attribute)
        raise DataError(f"{plugin.where}{line}: {attribute}: {expected}, got {_short(value)}")
    if complaint := kind.check(value):
        line = line_of(plugin, value.__name__, complaint.member)
        raise DataError(
            f"{plugin.where}{line}: {value.__name__}.{complaint.member}: {complaint.text}"
        )
    return value


def _import(plugin: Plugin, source: bytes) -> ModuleType:
    if plugin.module:
        return importlib.import_module(plugin.module)
    # What runs is what has this checksum: no bytecode of an earlier version gets in between. The
    # name tells files of one name apart, and files that were edited while the process runs.
    assert plugin.file is not None
    digest = hashlib.sha256(str(plugin.file).encode() + b"\0" + source).hexdigest()
    name = f"mmkgc_plugin_{plugin.name}_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, plugin.file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # pydantic looks annotations up there
    try:
        exec(compile(source, str(plugin.file), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _short(value: object) -> str:
    text = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
