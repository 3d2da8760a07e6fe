from __future__ import annotations

from pathlib import Path

import pytest

from mmkgc_cli.runs.batches.recipe import read_recipe
from mmkgc_cli.runs.config import read_config_file, resolve
from mmkgc_cli.runs.toml_file import read_toml
from mmkgc_cli.scoring import load_scorer
from tests.conftest import ROOT

RECIPES = sorted((ROOT / "recipes").glob("*.toml"))


@pytest.mark.parametrize("path", RECIPES, ids=lambda p: p.name)
def test_a_recipe_opens_with_its_command_and_holds_valid_settings(path: Path) -> None:
    first = path.read_text().splitlines()[0]
    values = read_config_file(path)
    if "batch" in values:
        assert first.startswith(f"# mmkgc batch recipes/{path.name}")
        read_recipe(path)
        return
    scorer = values["scorer"]
    assert first.startswith(f"# mmkgc train {scorer} --graph ")
    assert f"--config recipes/{path.name}" in first
    resolve(scorer, load_scorer(scorer).Config, file=read_toml(path))
