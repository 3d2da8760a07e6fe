"""What every scorer and sampler that is built in must come with."""

from __future__ import annotations

import ast
import re
from typing import Any

import pytest

from mmkgc_cli.plugins import BUILT_IN, PluginRegistry, discover
from mmkgc_cli.sampling.registry import SAMPLERS
from mmkgc_cli.scoring.registry import SCORERS
from tests.conftest import ROOT

PAGE = (ROOT / "docs" / "scorers.md").read_text(encoding="utf-8")
SHORTEST_CITATION = 20


def built_in(kind: PluginRegistry[Any]) -> list[str]:
    return [p.name for p in discover(kind).plugins.values() if p.origin == BUILT_IN]


def rows(section: str) -> dict[str, str]:
    """The table of a section of the page: the cells by name."""
    text = PAGE.partition(f"\n## {section}\n")[2].partition("\n## ")[0]
    cells_by_name = re.findall(r"^\| `(\w+)` \|(.*)\|$", text, re.MULTILINE)
    assert len(dict(cells_by_name)) == len(cells_by_name)
    return dict(cells_by_name)


PLUGINS = [
    (kind, section, name)
    for kind, section in ((SCORERS, "Scorers"), (SAMPLERS, "Samplers"))
    for name in built_in(kind)
]


@pytest.mark.parametrize(
    ("kind", "section", "name"), PLUGINS, ids=lambda node: node if isinstance(node, str) else ""
)
def test_every_plugin_has_a_citation_and_a_line_with_its_settings(
    kind: PluginRegistry[Any], section: str, name: str
) -> None:
    plugin = kind.load(name)
    assert len(plugin.citation) >= SHORTEST_CITATION
    cells = [cell.strip() for cell in rows(section)[name].split("|")]
    assert len(cells) == 4
    assert all(cells)
    assert re.findall(r"`(\w+)`", cells[2]) == list(plugin.Config.model_fields)


@pytest.mark.parametrize(("kind", "section"), [(SCORERS, "Scorers"), (SAMPLERS, "Samplers")])
def test_the_page_lists_exactly_the_built_in_plugins(
    kind: PluginRegistry[Any], section: str
) -> None:
    assert list(rows(section)) == sorted(built_in(kind))


@pytest.mark.parametrize("name", built_in(SCORERS))
def test_every_scorer_has_a_test_of_its_closed_form(name: str) -> None:
    file = ROOT / "tests" / "scorers" / f"test_{name}.py"
    assert file.is_file(), f"{file}: expected, with the score of {name} in closed form"
    tests = [
        node.name for node in ast.parse(file.read_text()).body if isinstance(node, ast.FunctionDef)
    ]
    closed = [test for test in tests if re.match(r"test_(the_)?score_(is|of)_", test)]
    assert closed, f"{file}: expected a test named test_score_is_…, the closed form; got {tests}"
