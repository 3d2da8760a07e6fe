"""Plugins of one file each: found by name without being imported, loaded one at a time.

A kind of plugin is looked for in its built-in package, among the entry points of installed
packages, in a folder of the working directory, and in the folders that an environment variable
lists. The first of a name is used. What is wrong with one plugin is an error of that one alone.
"""

from __future__ import annotations

import ast
import contextlib
import hashlib
import importlib
import importlib.util
import os
import sys
import traceback
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from importlib import metadata
from pathlib import Path
from types import ModuleType
from typing import Any, Generic, TypeVar

from mmkgc_cli.errors import DataError, MmkgcError, UsageError, nearest

T = TypeVar("T")
BUILT_IN = "built in"


@dataclass(frozen=True)
class Complaint:
    """What is wrong with a class: which member, what was expected and what is there."""

    member: str
    text: str


@dataclass(frozen=True)
class PluginKind(Generic[T]):
    """What plugins of one kind are called, where they are looked for, and what they must be.

    `base` and `check` are functions, so that what they need is imported only for loading a plugin.
    """

    noun: str
    package: str  # of the built-in ones
    group: str  # of entry points
    folder: str  # in the working directory
    variable: str  # more folders, separated as in PATH
    attribute: str  # of the module, which holds the class
    base: Callable[[], type[T]]
    check: Callable[[type[T]], Complaint | None]


@dataclass(frozen=True)
class Plugin:
    """A plugin that was found, not imported yet."""

    name: str
    origin: str
    file: Path | None  # absolute; None where an entry point leads nowhere
    module: str = ""  # to import by; empty for a file that belongs to no package
    attribute: str = ""

    @property
    def where(self) -> str:
        """The file as a message names it: from the working directory where it is in there."""
        if self.file is None:
            return f"{self.origin}: {self.module}"
        with contextlib.suppress(ValueError, OSError):
            return str(self.file.relative_to(Path.cwd()))
        return str(self.file)

    def sha256(self) -> str:
        """Of the file; empty where there is none.

        Raises:
            DataError: when it cannot be read.
        """
        return hashlib.sha256(_read(self)).hexdigest() if self.file else ""


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


@dataclass(frozen=True)
class Outline:
    """What a file says of itself without being run; `problem` is one line, empty if none shows."""

    summary: str = ""
    constants: dict[str, Any] = field(default_factory=dict)  # literal attributes of the class
    problem: str = ""


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


def load(kind: PluginKind[T], name: str) -> type[T]:
    """The class of the plugin `name`; no other plugin is imported.

    Raises:
        UsageError: when there is none of that name; lists the nearest.
        DataError: when it is broken: file and line, member, expected and got.
    """
    plugin = find(kind, name)
    if plugin is None:
        raise UsageError(
            f"no {kind.noun} is called {name!r}; {nearest(name, discover(kind).plugins)}"
        )
    return load_plugin(kind, plugin)


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
    source = b"" if plugin.module else _read(plugin)
    try:
        # A plugin that prints must not end up in a command's output.
        with contextlib.redirect_stdout(sys.stderr):
            module = _import(plugin, source)
    except (Exception, SystemExit) as error:
        raise DataError(_failure(plugin, error)) from error
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
        line = _line(plugin, attribute)
        raise DataError(f"{plugin.where}{line}: {attribute}: {expected}, got {_short(value)}")
    if complaint := kind.check(value):
        line = _line(plugin, value.__name__, complaint.member)
        raise DataError(
            f"{plugin.where}{line}: {value.__name__}.{complaint.member}: {complaint.text}"
        )
    return value


def outline(plugin: Plugin, attribute: str) -> Outline:
    """What the file of a plugin says without being run: a summary, and what is plainly wrong."""
    if plugin.file is None:
        return Outline(problem=f"{plugin.where}: no such module")
    try:
        tree = _parse(plugin)
    except MmkgcError as error:
        return Outline(problem=str(error))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Outline(problem=_failure(plugin, error))
    summary = (ast.get_docstring(tree) or "").strip().partition("\n")[0]
    attribute = plugin.attribute or attribute
    if not _binds(tree, attribute):
        return Outline(summary, problem=f"{plugin.where}: {attribute} is defined nowhere")
    return Outline(summary, _constants(tree, attribute))


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


def _read(plugin: Plugin) -> bytes:
    assert plugin.file is not None
    try:
        return plugin.file.read_bytes()
    except OSError as error:
        raise DataError(f"{plugin.where}: cannot be read: {error.strerror}") from error


def _parse(plugin: Plugin) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said again when it is loaded
        return ast.parse(_read(plugin), str(plugin.file))


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


def _failure(plugin: Plugin, error: BaseException) -> str:
    """One line on why a plugin cannot be imported, with the line of its file."""
    first = (str(error).strip().splitlines() or [""])[0]
    here = str(plugin.file)
    if isinstance(error, SyntaxError) and error.filename in (here, None, "<unknown>"):
        line = f":{error.lineno}" if error.lineno else ""
        return f"{plugin.where}{line}: not valid Python: {error.msg}"
    frames = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == here]
    line = f":{frames[-1]}" if frames else ""
    said = f"{type(error).__name__}: {first}" if first else type(error).__name__
    return f"{plugin.where}{line}: cannot be imported: {said}"


def _line(plugin: Plugin, name: str, member: str = "") -> str:
    """``:12`` for the top-level `name`, or for `member` where that class defines it."""
    try:
        tree = _parse(plugin) if plugin.file else ast.Module([], [])
    except (MmkgcError, SyntaxError, ValueError):
        return ""
    found = ""
    for node in tree.body:
        if name in _names(node):
            found = f":{node.lineno}"
            for part in node.body if isinstance(node, ast.ClassDef) else ():
                if member in _names(part):
                    found = f":{part.lineno}"
    return found


def _names(node: ast.stmt) -> set[str]:
    """What a statement of a module or class binds, as far as one sees."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    return {
        part.id
        for part in ast.walk(node)
        if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
    }


def _binds(tree: ast.Module, name: str) -> bool:
    """Whether running a module may define `name`, in whatever way."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef):
            named = bool(_names(node) & {name, "*", "__getattr__"})
        elif isinstance(node, ast.Name | ast.Constant):
            named = name == (node.id if isinstance(node, ast.Name) else node.value)
        else:
            named = False
        if named:
            return True
    return False


def _constants(tree: ast.Module, attribute: str) -> dict[str, Any]:
    """Literal attributes of the class that `attribute` stands for."""
    target = attribute
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign) and attribute in _names(node):
            target = node.value.id if isinstance(node.value, ast.Name) else target
    found: dict[str, Any] = {}
    for node in tree.body:
        if not (isinstance(node, ast.ClassDef) and node.name == target):
            continue
        for part in node.body:
            if isinstance(part, ast.Assign | ast.AnnAssign) and part.value is not None:
                with contextlib.suppress(ValueError, TypeError):
                    value = ast.literal_eval(part.value)
                    found |= dict.fromkeys(_names(part), value)
    return found


def _short(value: object) -> str:
    text = f"the class {value.__name__}" if isinstance(value, type) else repr(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
