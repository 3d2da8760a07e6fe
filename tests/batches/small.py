"""A small graph and recipes for the tests of batches."""

from __future__ import annotations

from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg import storage
from mmkgc_cli.runs.batches.plan import Job, plan
from mmkgc_cli.runs.batches.recipe import read_recipe
from tests.conftest import random_graph

# Trained until the first query.
BROKEN = '''"""Always fails."""
from pydantic import Field
from mmkgc_cli.ops import Metric
from mmkgc_cli.nn.functional import uniform
from mmkgc_cli.scoring.contract import Scorer, ScorerConfig


class Config(ScorerConfig):
    """One width."""

    dim: int = Field(8, description="width")


class Broken(Scorer):
    """Scores that cannot be."""

    Config = Config
    metric = Metric.l1
    citation = "none"

    def __init__(self, config, n_entities, n_relations, generator):
        super().__init__(config, n_entities, n_relations, generator)
        self.table = uniform(n_entities, config.dim, bound=1.0, generator=generator)

    def query(self, entities, relations, side):
        raise ValueError("no query today")

    def candidates(self, entities):
        return self.table if entities is None else self.table[entities]


SCORER = Broken
'''


def write_graph(folder: Path, name: str = "graph") -> Path:
    """Saves a random graph; its folder."""
    return storage.write_graph(random_graph(30, 3, 200, seed=1), folder / name)


def write_broken(folder: Path) -> None:
    """Puts the scorer `broken` where plugins are looked for."""
    (folder / "scorers").mkdir(exist_ok=True)
    (folder / "scorers" / "broken.py").write_text(BROKEN)


def write_recipe(folder: Path, text: str, name: str = "r.toml") -> Path:
    """A recipe."""
    path = folder / name
    path.write_text(text)
    return path


def jobs_of(text: str) -> list[Job]:
    """The plan of a recipe in the folder that is worked in."""
    return plan(read_recipe(write_recipe(Path(), text)))


def problems_of(text: str) -> list[str]:
    """What is said of a recipe that is wrong, line by line."""
    with pytest.raises(DataError) as caught:
        jobs_of(text)
    return str(caught.value).splitlines()
