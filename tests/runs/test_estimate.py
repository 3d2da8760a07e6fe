from __future__ import annotations

from pathlib import Path

import pytest
import torch

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.evaluation.ranker import NonFiniteScores
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs import assembly, estimate, resources
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.evaluation import run_evaluation
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.runs.training import run_training
from mmkgc_cli.scoring import load_scorer

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
