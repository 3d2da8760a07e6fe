"""What the file of a plugin says without being run."""

from __future__ import annotations

import ast
import contextlib
import warnings
from dataclasses import dataclass, field
from typing import Any

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.plugins.kinds import Plugin
from mmkgc_cli.plugins.tracebacks import place_in, said


@dataclass(frozen=True)
class Outline:
    """What a file says of itself without being run; `problem` is one line, empty if none shows."""

    summary: str = ""
    constants: dict[str, Any] = field(default_factory=dict)  # literal attributes of the class
    problem: str = ""


def outline(plugin: Plugin, attribute: str) -> Outline:
    """What the file of a plugin says without being run: a summary, and what is plainly wrong."""
    if plugin.file is None:
        return Outline(problem=f"{plugin.where}: no such module")
    try:
        tree = _parse(plugin)
    except MmkgcError as error:
        return Outline(problem=str(error))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Outline(problem=import_failure(plugin, error))
    summary = (ast.get_docstring(tree) or "").strip().partition("\n")[0]
    attribute = plugin.attribute or attribute
    if not _binds(tree, attribute):
        return Outline(summary, problem=f"{plugin.where}: {attribute} is defined nowhere")
    return Outline(summary, _constants(tree, attribute))


def _parse(plugin: Plugin) -> ast.Module:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # said again when it is loaded
        return ast.parse(plugin.read(), str(plugin.file))


def import_failure(plugin: Plugin, error: BaseException) -> str:
    """One line on why a plugin cannot be imported, with the line of its file."""
    here = str(plugin.file)
    if isinstance(error, SyntaxError) and error.filename in (here, None, "<unknown>"):
        line = f":{error.lineno}" if error.lineno else ""
        return f"{plugin.where}{line}: not valid Python: {error.msg}"
    place = place_in(error, here)
    line = f":{place[0]}" if place else ""
    return f"{plugin.where}{line}: cannot be imported: {said(error)}"


def line_of(plugin: Plugin, name: str, member: str = "") -> str:
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
