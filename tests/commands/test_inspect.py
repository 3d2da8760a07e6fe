from __future__ import annotations

import json
import math
from pathlib import Path

import pytest
import torch
from typer.testing import CliRunner

from mmkgc_cli.app import app
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.inspection import weighing
from mmkgc_cli.scoring.contract import MixtureWeights

TRAIN = [
    "train", "--epochs", "2", "--dim", "4", "--set", "training.eval_every=1",
    "--set", 'training.loss="entropy-weighted"', "--set", "training.negatives=4",
]  # fmt: skip


def run(*arguments: str) -> str:
    result = CliRunner().invoke(app, list(arguments), catch_exceptions=False)
    assert result.exit_code == 0, result.output
    return result.output


@pytest.fixture
def folder(graph: Graph, tmp_path: Path) -> Path:
    write_graph(graph, tmp_path / "graph")
    return tmp_path


def test_inspect_shows_weights_of_experts_and_certainty_over_training(folder: Path) -> None:
    graph, at = str(folder / "graph"), str(folder / "run")
    run(TRAIN[0], "mocme", "--graph", graph, "--run", at, *TRAIN[1:],
        "--set", "model.use_modalities=[]")  # fmt: skip
    shown = run("inspect", at)
    assert "structure: expert" in shown
    assert "the kept weights" in shown
    found = json.loads(run("inspect", at, "--json"))
    (experts,) = found["weighings"]
    assert [p["part"] for p in experts["parts"]] == ["expert 1", "expert 2", "expert 3"]
    assert sum(p["mean"] for p in experts["parts"]) == pytest.approx(1)
    assert [row["epoch"] for row in found["history"]] == [1, 2]
    for row in (*found["history"], found["certainty"]):
        assert row["easy"] + row["ambiguous"] + row["hard"] == pytest.approx(1)
    assert found["history"][found["epoch"] - 1]["hard"] == found["certainty"]["hard"]


def test_inspect_says_that_a_scorer_weighs_no_parts(folder: Path) -> None:
    graph, at = str(folder / "graph"), str(folder / "run")
    run(TRAIN[0], "rotate", "--graph", graph, "--run", at, *TRAIN[1:])
    assert "rotate weighs no parts" in run("inspect", at)


def test_what_a_row_lacks_has_no_part_in_numbers_and_evenness() -> None:
    values = torch.tensor([[0.5, 0.5, math.nan], [0.25, 0.25, 0.5], [1.0, math.nan, math.nan]])
    found = weighing(MixtureWeights("part", ("a", "b", "c"), values))
    assert [p.count for p in found.parts] == [3, 2, 1]
    assert weighing(MixtureWeights("part", ("a", "b"), values[2:, :2])).parts[1].mean is None
    assert found.parts[1].mean == pytest.approx(0.375)
    assert found.parts[0].median == pytest.approx(0.5)
    uneven = (0.5 * math.log(4) + 0.5 * math.log(2)) / math.log(3)
    assert found.evenness == pytest.approx((1 + uneven) / 2)
