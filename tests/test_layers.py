"""Dependencies point one way, and nothing in the product imports tests, benchmarks or recipes."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

from tests.conftest import ROOT

# Each room may import from rooms further down, and from its own.
LAYERS = [
    {"__main__"},
    {"app"},
    {"commands"},
    {"runs"},
    {"conformance"},
    {"training", "evaluation", "completion", "extraction"},
    {"sampling"},
    {"scoring", "features"},
    {"nn"},
    {"kg"},
    {"ops"},
    {"plugins"},
    {"state"},
    {"errors"},
    {"sides", "text", "__init__"},
]
DEPTH = {room: depth for depth, rooms in enumerate(LAYERS) for room in rooms}
# What the package never imports; scorers are found by name, by the registry.
OUTSIDE = {"tests", "benchmarks", "recipes", "pykeen", "mendeleev", "mmkgc_scorers"}
PACKAGE = sorted((ROOT / "mmkgc_cli").rglob("*.py"))
SCORERS = sorted((ROOT / "scorers").glob("*.py"))


def imports(path: Path) -> set[str]:
    """Dotted names a file imports, within functions too; `from a import b` gives both."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            names.add(node.module or "")
            names.update(f"{node.module}.{alias.name}" for alias in node.names)
    return names


def room(name: str) -> str:
    parts = name.split(".")
    return parts[1] if len(parts) > 1 else "__init__"


def module_of(path: Path) -> str:
    parts = path.relative_to(ROOT).with_suffix("").parts
    return ".".join(parts[:-1] if parts[-1] == "__init__" else parts)


def imported_modules(path: Path, modules: set[str]) -> set[str]:
    """The `modules` that a file imports, for type checking and within functions too.

    ``from a import b`` is an import of ``a.b`` where that is a module, else of ``a``.
    """
    targets: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            targets.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            names = {f"{node.module}.{alias.name}" for alias in node.names}
            targets.update(name if name in modules else str(node.module) for name in names)
    return targets & modules


def circles(graph: dict[str, set[str]]) -> list[list[str]]:
    """Groups of nodes that reach one another."""

    def reached_from(start: str) -> set[str]:
        seen: set[str] = set()
        stack = [start]
        while stack:
            new = graph[stack.pop()] - seen
            seen |= new
            stack += new
        return seen

    reached = {name: reached_from(name) for name in graph}
    groups = {
        tuple(sorted(other for other in reached[name] if name in reached[other]))
        for name in graph
        if name in reached[name]
    }
    return [list(group) for group in sorted(groups)]


def test_circles_are_found_and_chains_are_not() -> None:
    graph = {"a": {"b"}, "b": {"c"}, "c": {"b", "d"}, "d": set(), "e": {"e"}}
    assert circles(graph) == [["b", "c"], ["e"]]


def test_no_modules_import_one_another() -> None:
    modules = {module_of(path): path for path in PACKAGE}
    graph = {name: imported_modules(path, set(modules)) for name, path in modules.items()}
    assert circles(graph) == []


@pytest.mark.parametrize("path", PACKAGE, ids=lambda p: str(p.relative_to(ROOT)))
def test_imports_point_down(path: Path) -> None:
    parts = path.relative_to(ROOT / "mmkgc_cli").parts
    here = parts[0] if len(parts) > 1 else path.stem
    for name in imports(path):
        if name.split(".")[0] == "mmkgc_cli" and room(name) in DEPTH:
            there = room(name)
            assert DEPTH[there] > DEPTH[here] or there == here, f"{path} imports {name}"
        assert name.split(".")[0] not in OUTSIDE, f"{path} imports {name}"
        if name.split(".")[0] in {"typer", "rich"}:
            assert here in {"app", "commands"}, f"{path} imports {name}"


def test_every_room_has_its_place() -> None:
    rooms = {p.name for p in (ROOT / "mmkgc_cli").iterdir() if (p / "__init__.py").exists()}
    assert rooms <= set(DEPTH)


# What scorers may import: the contract, ops, and what several of them are built from.
BLOCKS = (
    "mmkgc_cli.nn",
    "mmkgc_cli.ops",
    "mmkgc_cli.scoring.contract",
    "mmkgc_cli.scoring.multimodal_transe",
    "mmkgc_cli.scoring.regularization",
)


@pytest.mark.parametrize("path", SCORERS, ids=lambda p: p.name)
def test_scorers_import_the_contract_ops_and_building_blocks_only(path: Path) -> None:
    for name in imports(path):
        if name.startswith(("mmkgc_cli", "mmkgc_scorers")):
            assert name.startswith(BLOCKS), name
        assert name.split(".")[0] not in {"typer", "rich"}


def test_the_installed_packages_are_all_listed() -> None:
    import tomllib

    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    found = {
        ".".join(p.parent.relative_to(ROOT).parts)
        for p in (ROOT / "mmkgc_cli").rglob("__init__.py")
    }
    assert set(listed) == found | {"mmkgc_scorers"}
