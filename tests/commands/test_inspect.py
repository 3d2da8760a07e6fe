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
from mmkgc_cli.runs.inspection import summarize
from mmkgc_cli.scoring.contract import MixtureWeights

TRAIN = [
    "train", "--epochs", "2", "--dim", "4", "--set", "validation.every=1",
    "--set", 'loss.name="entropy-weighted"', "--set", "negatives.count=4",
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
    graph, path = str(folder / "graph"), str(folder / "run")
    run(TRAIN[0], "mocme", "--graph", graph, "--run", path, *TRAIN[1:],
        "--set", "model.use_modalities=[]")  # fmt: skip
    shown = run("inspect", path)
    assert "structure: expert" in shown
    assert "selected weights" in shown
    report = json.loads(run("inspect", path, "--json"))
    (experts,) = report["weighings"]
    assert [p["part"] for p in experts["parts"]] == ["expert 1", "expert 2", "expert 3"]
    assert sum(p["mean"] for p in experts["parts"]) == pytest.approx(1)
    assert [row["epoch"] for row in report["history"]] == [1, 2]
    for row in (*report["history"], report["certainty"]):
        assert row["easy"] + row["ambiguous"] + row["hard"] == pytest.approx(1)
    assert report["history"][report["epoch"] - 1]["hard"] == report["certainty"]["hard"]


def test_inspect_of_a_scorer_without_mixture_weights(folder: Path) -> None:
    graph, path = str(folder / "graph"), str(folder / "run")
    run(TRAIN[0], "rotate", "--graph", graph, "--run", path, *TRAIN[1:])
    assert "rotate has no mixture weights" in run("inspect", path)


def test_missing_parts_are_excluded_from_statistics_and_evenness() -> None:
    values = torch.tensor([[0.5, 0.5, math.nan], [0.25, 0.25, 0.5], [1.0, math.nan, math.nan]])
    found = summarize(MixtureWeights("part", ("a", "b", "c"), values))
    assert [p.count for p in found.parts] == [3, 2, 1]
    assert summarize(MixtureWeights("part", ("a", "b"), values[2:, :2])).parts[1].mean is None
    assert found.parts[1].mean == pytest.approx(0.375)
    assert found.parts[0].median == pytest.approx(0.5)
    uneven = (0.5 * math.log(4) + 0.5 * math.log(2)) / math.log(3)
    assert found.evenness == pytest.approx((1 + uneven) / 2)
