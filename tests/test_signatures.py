"""Functions with many arguments take them by name."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

MOST = 6
SOURCES = sorted(
    path
    for folder in ("mmkgc_cli", "scorers", "benchmarks")
    for path in (ROOT / folder).rglob("*.py")
)
# Bodies of ops: torch calls them with the arguments of the op's schema, by position.
BY_SCHEMA = {"reference", "fake", "setup_context", "backward", "forward", "_check_arguments"}


def positional(node: ast.FunctionDef | ast.AsyncFunctionDef) -> list[str]:
    names = [argument.arg for argument in [*node.args.posonlyargs, *node.args.args]]
    return names[1:] if names[:1] in (["self"], ["cls"]) else names


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_function_takes_more_than_six_positional_arguments(path: Path) -> None:
    long = [
        f"{path.relative_to(ROOT)}:{node.lineno}: {node.name} takes {len(positional(node))}"
        for node in ast.walk(ast.parse(path.read_text()))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and len(positional(node)) > MOST
        and node.name not in BY_SCHEMA
    ]
    assert not long, "\n".join(long)
