from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from mmkgc_cli.errors import DataError, MmkgcError, UsageError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs import assembly, training
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.evaluation import run_evaluation
from mmkgc_cli.runs.training import Trained, run_training
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.state.trace import read_trace
from mmkgc_cli.state.weights import load_weights
from mmkgc_cli.training.program import ScorerProgram
from tests.kg.test_graph import renumbered

SMALL = ["training.epochs=4", "validation.every=2", "model.dim=8", "training.batch_size=64"]


@pytest.fixture
def folder(graph: Graph, tmp_path: Path) -> Path:
    write_graph(graph, tmp_path / "graph")
    return tmp_path / "graph"


def train(folder: Path, path: Path, *overrides: str, scorer: str = "rotate") -> Trained:
    settings = [*SMALL, *overrides] if scorer == "rotate" else list(overrides)
    config = resolve(scorer, load_scorer(scorer).Config, overrides=settings)
    return run_training(config, folder, RunDirectory(path))


def test_a_run_has_all_files_and_events(folder: Path, tmp_path: Path, graph: Graph) -> None:
    run = RunDirectory(tmp_path / "run")
    trained = train(folder, run.path)
    names = {"config.toml", "environment.json", "trace.jsonl", "model.safetensors", "checkpoints"}
    assert {p.name for p in run.path.iterdir()} == names
    events = read_trace(run.trace)
    assert [e["event"] for e in events] == ["start", *["epoch"] * 4, "end"]
    seconds = [event["seconds"] for event in events]
    assert seconds == sorted(seconds)
    assert events[-1]["valid_mrr"] == trained.valid["mrr"] == trained.outcome.best_mrr
    metadata = load_weights(run.weights)[1]
    assert metadata["fingerprint"] == graph.fingerprint
    assert int(metadata["epoch"]) == trained.outcome.best_epoch
    environment = json.loads(run.environment.read_text())
    assert {"mmkgc", "python", "packages", "threads", "command"} <= set(environment)


def test_the_same_seed_gives_the_same_weights_and_another_does_not(
    folder: Path, tmp_path: Path
) -> None:
    digests = []
    for name, seed in (("a", 1), ("b", 1), ("c", 2)):
        train(folder, tmp_path / name, f"training.seed={seed}")
        digests.append(load_weights(tmp_path / name / "model.safetensors")[1]["sha256"])
    assert digests[0] == digests[1] != digests[2]


@pytest.mark.parametrize("optimizer", ["adam", "lazy-adam"])
def test_the_number_of_threads_changes_no_bit(folder: Path, tmp_path: Path, optimizer: str) -> None:
    before = torch.get_num_threads()
    digests = set()
    try:
        for threads in (1, 2, 3):
            run = tmp_path / f"{threads}"
            train(
                folder, run, f"training.threads={threads}", f"optimizer.name={optimizer}",
                "model.dim=65",
            )  # fmt: skip
            digests.add(load_weights(run / "model.safetensors")[1]["sha256"])
    finally:
        torch.set_num_threads(before)
    assert len(digests) == 1


def test_validations_rank_in_eval_mode_and_steps_run_in_training_mode(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    modes: list[tuple[str, bool]] = []

    def recorded(name: str, function: Any) -> Any:
        def with_record(first: Any, *rest: Any) -> Any:
            modes.append((name, first.scorer.training if name == "step" else first.training))
            return function(first, *rest)

        return with_record

    monkeypatch.setattr(ScorerProgram, "step", recorded("step", ScorerProgram.step))
    for module in (training, assembly):
        monkeypatch.setattr(module, "rank", recorded("rank", module.rank))
    train(folder, tmp_path / "run", "training.batch_size=1000")
    # One ranking before the first step, then a validation after every second step.
    assert [name for name, _ in modes] == ["rank", *["step", "step", "rank"] * 2]
    assert all(training == (name == "step") for name, training in modes)


def test_evaluation_of_the_best_weights_reproduces_the_selection(
    folder: Path, tmp_path: Path
) -> None:
    trained = train(folder, tmp_path / "run")
    results = run_evaluation(RunDirectory(tmp_path / "run"), None, "valid")
    assert results["metrics"]["valid"]["both"]["realistic"] == trained.valid


def test_results_nest_split_side_tie_metric_and_keep_the_protocol(
    folder: Path, tmp_path: Path, graph: Graph
) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run.path)
    run_evaluation(run, None, "valid")
    results = run_evaluation(run, None, "test")
    assert json.loads(run.results.read_text()) == results
    assert set(results["metrics"]) == {"valid", "test"}
    entry = results["metrics"]["test"]["head"]["pessimistic"]
    assert set(entry) == {"mrr", "mr", "hits@1", "hits@3", "hits@10", "amri"}
    protocol = results["protocol"]
    assert protocol["fingerprint"] == graph.fingerprint
    assert protocol["selection"] == {
        "metric": "mrr",
        "split": "valid",
        "triples": 30,
        "ties": "realistic",
        "clean": True,
        "valid_in_train": 0,
        "valid_in_test": 0,
        "test_in_train": 0,
        "train_duplicates": 0,
        "valid_duplicates": 0,
        "test_duplicates": 0,
    }
    names = {graph.relations[r] for r in np.unique(graph.test[:, 1])}
    assert set(results["relations"]["test"]) == names
    train(folder, tmp_path / "other", "training.seed=5")
    fresh = RunDirectory(tmp_path / "other")
    run.results.rename(fresh.results)
    assert set(run_evaluation(fresh, None, "test")["metrics"]) == {"test"}


@pytest.mark.parametrize("damage", ["{", "[]", '{"metrics": [1]}', ""])
def test_damaged_results_are_replaced(folder: Path, tmp_path: Path, damage: str) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run.path)
    results = run_evaluation(run, None, "test")
    run.results.write_text(damage)
    assert run_evaluation(run, None, "test") == results


def test_selection_on_a_contaminated_split_is_recorded(
    graph: Graph, folder: Path, tmp_path: Path
) -> None:
    leaky = dataclasses.replace(graph, valid=graph.train[:20])
    write_graph(leaky, folder)
    train(folder, tmp_path / "run")
    selection = run_evaluation(RunDirectory(tmp_path / "run"), None, "test")["protocol"][
        "selection"
    ]
    assert (selection["clean"], selection["valid_in_train"]) == (False, 20)


def test_a_run_of_another_device_is_evaluated_on_this_one(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run.path)
    text = run.config.read_text().replace('device = "auto"', 'device = "cuda"')
    run.config.write_text(text)
    assert run_evaluation(run, None, "test", "cpu")["metrics"]["test"]["both"]["count"] == 60


def test_the_table_of_ranks_reproduces_the_metrics(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run.path)
    results = run_evaluation(run, None, "test")
    header, *lines = run.ranks("test").read_text().splitlines()
    rows = [dict(zip(header.split("\t"), line.split("\t"), strict=True)) for line in lines]
    assert len(rows) == 60
    for side in ("head", "tail"):
        ranks = [float(row["realistic"]) for row in rows if row["side"] == side]
        mrr = float(np.mean(1 / np.array(ranks)))
        assert mrr == pytest.approx(results["metrics"]["test"][side]["realistic"]["mrr"])


def test_the_frequency_baseline_runs_like_any_scorer(folder: Path, tmp_path: Path) -> None:
    trained = train(folder, tmp_path / "run", scorer="frequency")
    results = run_evaluation(RunDirectory(tmp_path / "run"), None, "valid")
    assert results["metrics"]["valid"]["both"]["realistic"] == trained.valid
    assert trained.outcome.stopped == "nothing to train"


def test_a_run_of_another_graph_is_refused(folder: Path, tmp_path: Path, graph: Graph) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run.path)
    moved = Graph(
        "moved", graph.entities, graph.relations, graph.train[1:], graph.valid, graph.test
    )
    write_graph(moved, tmp_path / "moved")
    with pytest.raises(DataError, match=r"trained on graph 'random' .* holds 'moved'"):
        run_evaluation(run, tmp_path / "moved", "test")
    write_graph(renumbered(graph, 0), tmp_path / "renumbered")
    with pytest.raises(DataError, match="the same triples with other ids"):
        run_evaluation(run, tmp_path / "renumbered", "test")
    assert not run.results.exists()


def test_a_run_is_not_overwritten_without_a_flag(folder: Path, tmp_path: Path) -> None:
    train(folder, tmp_path / "run")
    with pytest.raises(UsageError, match="a run exists already; .*--overwrite"):
        train(folder, tmp_path / "run")


def test_a_folder_without_a_run_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"not a run directory \(no config.toml\)"):
        run_evaluation(RunDirectory(tmp_path), None, "test")


def test_weights_of_another_run_are_refused(folder: Path, tmp_path: Path) -> None:
    run = RunDirectory(tmp_path / "run")
    train(folder, run.path)
    train(folder, tmp_path / "other", "model.dim=4")
    run.weights.write_bytes((tmp_path / "other" / "model.safetensors").read_bytes())
    with pytest.raises(DataError, match="do not fit the configuration of the run; train again"):
        run_evaluation(run, None, "test")


def test_the_trace_records_that_a_training_diverged(
    folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    scorer = load_scorer("rotate")
    loss = scorer.loss_sampled
    monkeypatch.setattr(scorer, "loss_sampled", lambda *x: float("nan") * loss(*x))
    run = RunDirectory(tmp_path / "run")
    with pytest.raises(
        MmkgcError, match=r"epoch 1: the loss term 'loss' is nan; lower the learning rate"
    ):
        train(folder, run.path)
    last = read_trace(run.trace)[-1]
    assert (last["event"], "lower the learning rate" in last["message"]) == ("error", True)
    assert not run.weights.exists()


def test_cuda_without_a_gpu_is_an_error(folder: Path, tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("this machine has CUDA")
    with pytest.raises(MmkgcError, match="torch sees no CUDA device"):
        train(folder, tmp_path / "run", "training.device=cuda")
    assert not (tmp_path / "run").exists()
