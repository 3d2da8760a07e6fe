"""Training and ranking with everything on a GPU."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.jobs import Trained, run_evaluation, run_training
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.state.weights import load_weights

pytestmark = [
    pytest.mark.cuda,
    pytest.mark.skipif(not torch.cuda.is_available(), reason="there is no GPU"),
]

SETTINGS = ["training.epochs=4", "training.eval_every=2", "model.dim=8", "training.batch_size=64"]


class Silent:
    def begin(self, *args: object) -> None: ...

    def step(self, *args: object) -> None: ...

    def epoch(self, *args: object) -> None: ...


def train(folder: Path, run: Path, device: str) -> Trained:
    settings = [*SETTINGS, f"training.device={device}"]
    config = resolve("rotate", load_scorer("rotate").Config, {}, "", {}, settings)
    return run_training(config, folder, RunDirectory(run), False, Silent())


def test_training_repeats_byte_by_byte_and_evaluates_alike_on_both_devices(
    graph: Graph, tmp_path: Path
) -> None:
    folder = tmp_path / "graph"
    write_graph(graph, folder)
    digests = []
    for name in ("a", "b"):
        trained = train(folder, tmp_path / name, "cuda")
        assert trained.valid["mrr"] == trained.outcome.best_mrr
        digests.append(load_weights(tmp_path / name / "model.safetensors")[1]["sha256"])
    assert digests[0] == digests[1]
    there, here = (
        run_evaluation(RunDirectory(tmp_path / "a"), None, "test", device)["metrics"]["test"]
        for device in ("cuda", "cpu")
    )
    found, expected = (of["both"]["realistic"]["mrr"] for of in (there, here))
    assert found == pytest.approx(expected, abs=1e-3)
