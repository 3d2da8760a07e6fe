"""Imports a plugin and checks its class."""

from __future__ import annotations

import contextlib
import hashlib
import importlib
import importlib.util
import sys
from types import ModuleType
from typing import Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.plugins.checks import check_arguments, check_description
from mmkgc_cli.plugins.kinds import Complaint, Plugin, PluginKind, T
from mmkgc_cli.plugins.source import import_failure, line_of
from mmkgc_cli.plugins.tracebacks import register
from mmkgc_cli.plugins.trust import require_trust


def load_plugin(kind: PluginKind[T], plugin: Plugin, *, trusted: bool = False) -> type[T]:
    """The class of a plugin that was found.

    Args:
        kind: its kind.
        plugin: where it is.
        trusted: run its code without asking `trust`.

    Raises:
        DataError: for a plugin that is not trusted, or broken: file and line, member, expected and
            got.
    """
    source = b"" if plugin.module else plugin.read()
    if not trusted:
        require_trust(kind.noun, plugin, source)
    register(plugin)
    try:
        # The output of a command is not the place for what a plugin prints.
        with contextlib.redirect_stdout(sys.stderr):
            module = _import(plugin, source)
    except (Exception, SystemExit) as error:
        raise DataError(
            import_failure(plugin, error), fix=f"correct the file of the {kind.noun}"
        ) from error
    attribute = plugin.attribute or kind.attribute
    base = kind.base_class()
    expected = f"expected a subclass of {base.__module__}.{base.__qualname__}"
    fix = f"end the file with {attribute} = YourClass"
    if not hasattr(module, attribute):
        raise DataError(f"{plugin.where}: {attribute}: {expected}, got nothing", fix=fix)
    value = getattr(module, attribute)
    if not (isinstance(value, type) and issubclass(value, base)) or value is base:
        line = line_of(plugin, attribute)
        raise DataError(
            f"{plugin.where}{line}: {attribute}: {expected}, got {_short(value)}", fix=fix
        )
    if complaint := _check(kind, value, base):
        line = line_of(plugin, value.__name__, complaint.member)
        raise DataError(
            f"{plugin.where}{line}: {value.__name__}.{complaint.member}: {complaint.text}",
            fix=complaint.fix,
        )
    return value


def _check(kind: PluginKind[T], plugin: type[T], base: type[T]) -> Complaint | None:
    """The first thing that is wrong with a class."""
    if complaint := kind.check(plugin, base):
        return complaint
    for name, arguments in kind.calls.items():
        called = name == "__init__" or getattr(plugin, name) is not getattr(base, name)
        if called and (complaint := check_arguments(plugin, name, arguments)):
            return complaint
    config: Any = getattr(base, "Config")  # noqa: B009
    return check_description(plugin, config)


def _import(plugin: Plugin, source: bytes) -> ModuleType:
    if plugin.module:
        return importlib.import_module(plugin.module)
    # Compiled from the bytes that have the recorded checksum, not from cached bytecode. The digest
    # in the name separates files of equal names, and versions of a file that is edited meanwhile.
    assert plugin.file is not None
    digest = hashlib.sha256(str(plugin.file).encode() + b"\0" + source).hexdigest()
    name = f"mmkgc_plugin_{plugin.name}_{digest[:16]}"
    if name in sys.modules:
        return sys.modules[name]
    spec = importlib.util.spec_from_file_location(name, plugin.file)
    assert spec is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where pydantic resolves annotations
    try:
        exec(compile(source, str(plugin.file), "exec", dont_inherit=True), module.__dict__)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _short(value: object) -> str:
    text = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
