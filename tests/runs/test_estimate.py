from __future__ import annotations

import inspect
import os
import re
import resource
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.evaluation.ranker import NonFiniteScores
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.plugins import BUILT_IN, discover
from mmkgc_cli.runs import assembly, estimate, resources, shapes
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.evaluation import run_evaluation
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.runs.training import run_training
from mmkgc_cli.scoring import Features, Scorer, load_scorer
from mmkgc_cli.scoring.registry import SCORERS
from mmkgc_cli.state.tensors import kept_tensors
from tests.conftest import ROOT, command, random_graph

SMALL = ["training.epochs=4", "validation.every=2", "model.dim=8", "training.batch_size=64"]


def config_of(*more: str, scorer: str = "rotate") -> RunConfig:
    settings = [*SMALL, *more] if scorer == "rotate" else []
    return resolve(scorer, load_scorer(scorer).Config, overrides=settings)


def test_an_estimate_writes_nothing_and_adds_up(graph: Graph, tmp_path: Path) -> None:
    found = estimate.estimate(config_of(), graph, tmp_path / "runs" / "new")
    assert list(tmp_path.iterdir()) == []
    assert found.parameters == 40 * 16 + 5 * 8
    assert found.seconds_per_epoch > 0
    assert found.seconds == pytest.approx(
        4 * found.seconds_per_epoch + 2 * found.seconds_per_validation
    )
    # Weights twice, while they are replaced, and three checkpoints of thrice their size.
    assert found.disk_mib == pytest.approx((2 + 3 * 3) * found.parameters * 4 / 2**20)


def test_trainings_against_all_candidates_are_estimated_too(graph: Graph, tmp_path: Path) -> None:
    settings = ["training.candidates=all", "loss.name=softmax", "training.epochs=3"]
    config = resolve("pairre", load_scorer("pairre").Config, overrides=settings)
    found = estimate.estimate(config, graph, tmp_path)
    assert found.seconds_per_epoch > 0
    assert found.parameters == 40 * 128 + 5 * 256


def test_a_scorer_without_parameters_only_takes_a_validation(graph: Graph, tmp_path: Path) -> None:
    found = estimate.estimate(config_of(scorer="frequency"), graph, tmp_path)
    assert (found.parameters, found.seconds_per_epoch) == (0, 0)
    assert found.seconds == found.seconds_per_validation > 0


@pytest.mark.parametrize(
    ("what", "message"),
    [
        ("free_memory_mib", r"training needs about .* MiB of memory, 0 MiB are free"),
        (
            "free_disk_mib",
            r"run: weights and checkpoints need about .* MiB of disk, 0 MiB are free",
        ),
    ],
)
def test_what_cannot_fit_is_refused_before_anything_is_trained(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, what: str, message: str
) -> None:
    write_graph(graph, tmp_path / "graph")
    monkeypatch.setattr(resources, what, lambda _: 0.0)
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(MmkgcError, match=message):
        run_training(config_of(), tmp_path / "graph", run)
    assert not run.path.exists()


def test_what_cannot_fit_is_refused_before_it_takes_memory(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    devices = []
    build = assembly.build_scorer

    def recorded(config: RunConfig, graph: Graph, device: torch.device, *rest: Any) -> Scorer:
        devices.append(device.type)
        return build(config, graph, device, *rest)

    monkeypatch.setattr(assembly, "build_scorer", recorded)
    monkeypatch.setattr(resources, "free_memory_mib", lambda _: 60.0)
    # 40 entities and 5 relations of 2^17 numbers are 22.5 MiB: weights, gradients, two moments.
    large = resolve("transe", load_scorer("transe").Config, overrides=["model.dim=131072"])
    with pytest.raises(MmkgcError, match=r"needs about 90 MiB of memory, 60 MiB are free"):
        estimate.estimate(large, graph, tmp_path / "run")
    assert devices == ["meta"]


@pytest.mark.parametrize(
    "name", [p.name for p in discover(SCORERS).plugins.values() if p.origin == BUILT_IN]
)
@pytest.mark.parametrize("small", [0, 1 << 22])
def test_shapes_are_those_of_the_scorer(
    graph: Graph, monkeypatch: pytest.MonkeyPatch, name: str, small: int
) -> None:
    monkeypatch.setattr(shapes, "SMALL", small)
    n = len(graph.entities)
    modalities = {
        name: Features(torch.rand(n, 12), torch.rand(n) > 0.3) for name in ("image", "text")
    }
    takes_features = "features" in inspect.signature(load_scorer(name)).parameters
    features = modalities if takes_features else {}
    config = resolve(name, load_scorer(name).Config)
    real = assembly.build_scorer(config, graph, torch.device("cpu"), features)
    meta = torch.device("meta")
    found = shapes.shapes_of(lambda: assembly.build_scorer(config, graph, meta, features))
    assert found is not None
    assert {k: (v.shape, v.dtype) for k, v in found.named_parameters()} == {
        k: (v.shape, v.dtype) for k, v in real.named_parameters()
    }
    assert all(tensor.is_meta for tensor in kept_tensors(found).values())


def test_a_constructor_that_reads_values_has_no_shapes() -> None:
    large = shapes.SMALL + 1
    assert shapes.shapes_of(lambda: torch.zeros(large).tolist()) is None
    assert shapes.shapes_of(lambda: torch.zeros(4).tolist()) == [0, 0, 0, 0]


@pytest.mark.skipif(sys.platform != "linux", reason="limits of memory are those of Linux")
def test_a_dry_run_under_a_limit_of_memory_answers_in_one_line(tmp_path: Path) -> None:
    write_graph(random_graph(20_000, 2, 500, seed=0), tmp_path / "graph")
    limit = 7_000_000_000
    done = subprocess.run(
        command("train", "transe", "--graph", "graph", "--dry-run", "--set", "model.dim=131072"),
        cwd=tmp_path, capture_output=True, text=True, timeout=120,
        preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_AS, (limit, limit)),
        env={**os.environ, "PYTHONPATH": f"{ROOT}:{os.environ.get('PYTHONPATH', '')}"},
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(
        r"error: training needs about 40,00\d MiB of memory, .* MiB are free; lower .*\n",
        done.stderr,
    )


def test_a_ranking_that_fails_does_so_before_the_run_is_made(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_graph(graph, tmp_path / "graph")
    scorer_class = load_scorer("rotate")
    monkeypatch.setattr(
        scorer_class, "query", lambda self, e, r, side: torch.full((len(e), 16), torch.nan)
    )
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(NonFiniteScores):
        run_training(config_of(), tmp_path / "graph", run)
    assert not run.path.exists()


def test_a_sample_of_valid_is_fixed_by_the_seed_and_all_of_it_by_default(graph: Graph) -> None:
    def chosen(*settings: str) -> list[tuple[int, ...]]:
        rows = assembly.valid_triples(config_of(*settings), graph)
        return [tuple(row) for row in rows.tolist()]

    assert chosen() == chosen("validation.sample=1000") == [tuple(r) for r in graph.valid.tolist()]
    sample = chosen("validation.sample=7")
    assert len(set(sample)) == 7
    assert set(sample) <= set(chosen())
    assert sample == chosen("validation.sample=7")
    assert sample != chosen("validation.sample=7", "training.seed=1")


def test_a_sample_is_on_the_record(graph: Graph, tmp_path: Path) -> None:
    write_graph(graph, tmp_path / "graph")
    run = RunDirectory(tmp_path / "run")
    run_training(config_of("validation.sample=7"), tmp_path / "graph", run)
    results = run_evaluation(run, None, "test")
    assert results["protocol"]["selection"]["triples"] == 7


def test_memory_is_known_where_the_system_says() -> None:
    free = resources.free_memory_mib(torch.device("cpu"))
    assert free is None or free > 0
