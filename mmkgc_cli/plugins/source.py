"""Reads the source of a plugin without running it."""

from __future__ import annotations

import ast
import hashlib
import warnings
from dataclasses import dataclass

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.plugins.kinds import Plugin
from mmkgc_cli.plugins.tracebacks import describe, locate

# Parsed files of this process by SHA-256. All built-in plugins and what they import parse in less
# than 50 ms, so nothing is cached on the disk.
_parsed: dict[bytes, ast.Module] = {}


@dataclass(frozen=True)
class Outline:
    """What the source shows: `summary`, and `problem`, one line or empty."""

    summary: str = ""
    problem: str = ""


def outline(plugin: Plugin, attribute: str) -> Outline:
    """The summary of a plugin, and whether its file is evidently broken."""
    if plugin.file is None:
        return Outline(problem=f"{plugin.where}: no such module")
    try:
        tree = parse(plugin.read(), str(plugin.file))
    except MmkgcError as error:
        return Outline(problem=str(error))
    except (SyntaxError, ValueError, RecursionError, MemoryError) as error:
        return Outline(problem=import_failure(plugin, error))
    summary = next(iter((ast.get_docstring(tree) or "").strip().splitlines()), "")
    attribute = plugin.attribute or attribute
    if not _may_define(tree, attribute):
        return Outline(summary, f"{plugin.where}: {attribute} is defined nowhere")
    return Outline(summary)


def parse(source: bytes, file: str) -> ast.Module:
    """The syntax tree of a file.

    Raises:
        SyntaxError, ValueError, RecursionError, MemoryError: when it is not valid Python.
    """
    digest = hashlib.sha256(source).digest()
    if digest not in _parsed:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # Python shows them when the file is imported
            _parsed[digest] = ast.parse(source, file)
    return _parsed[digest]


def import_failure(plugin: Plugin, error: BaseException) -> str:
    """One line on why a plugin cannot be imported, with the line of its file."""
    file = str(plugin.file)
    if isinstance(error, SyntaxError) and error.filename in (file, None, "<unknown>"):
        line = f":{error.lineno}" if error.lineno else ""
        return f"{plugin.where}{line}: not valid Python: {error.msg}"
    place = locate(error, file)
    line = f":{place[0]}" if place else ""
    return f"{plugin.where}{line}: cannot be imported: {describe(error)}"


def line_of(plugin: Plugin, name: str, member: str = "") -> str:
    """``:12``, the line of the top-level `name`, or of `member` where that class defines it."""
    try:
        tree = parse(plugin.read(), str(plugin.file)) if plugin.file else ast.Module([], [])
    except (MmkgcError, SyntaxError, ValueError):
        return ""
    line = ""
    for node in tree.body:
        if name in bound_names(node):
            line = f":{node.lineno}"
            for statement in node.body if isinstance(node, ast.ClassDef) else ():
                if member in bound_names(statement):
                    line = f":{statement.lineno}"
    return line


def bound_names(node: ast.stmt) -> set[str]:
    """The names that a statement evidently binds in its module or class."""
    if isinstance(node, ast.ClassDef | ast.FunctionDef | ast.AsyncFunctionDef):
        return {node.name}
    if isinstance(node, ast.Import | ast.ImportFrom):
        return {alias.asname or alias.name for alias in node.names}
    return {
        child.id
        for child in ast.walk(node)
        if isinstance(child, ast.Name) and isinstance(child.ctx, ast.Store)
    }


def _may_define(tree: ast.Module, name: str) -> bool:
    """Whether running a module may define `name` in any way."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import | ast.ImportFrom | ast.ClassDef | ast.FunctionDef):
            matches = bool(bound_names(node) & {name, "*", "__getattr__"})
        elif isinstance(node, ast.Name | ast.Constant):
            matches = name == (node.id if isinstance(node, ast.Name) else node.value)
        else:
            matches = False
        if matches:
            return True
    return False
