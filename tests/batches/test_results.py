from __future__ import annotations

import csv
import io
import json
import statistics
import tomllib
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.kg.storage import load_graph
from tests.batches.small import write_graph, write_recipe
from tests.conftest import Outcome
from tests.features.small import write

Run = Callable[..., Outcome]
RECIPE = """
[batch]
graphs = ["graph"]
scorers = ["ikrl", "frequency"]
seeds = [0, 1]

[features]
image = "{graph}/image.h5"
fill = "zero"

[mask]
rates = [0.0, 0.5]

[settings]
training.epochs = 2

[scorer.ikrl]
model.dim = 4

[[exclude]]
scorer = "frequency"
rate = 0.5

[[exclude]]
scorer = "frequency"
seed = 1

[[exclude]]
scorer = "ikrl"
rate = 0.0
seed = 1
"""


@pytest.fixture
def recipe(tmp_path: Path) -> Path:
    graph = load_graph(write_graph(tmp_path))
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(graph.entities), 3)).astype("float32")
    write(
        tmp_path / "graph" / "image.h5", list(graph.entities), vectors, metadata=Metadata("image")
    )
    return write_recipe(tmp_path, RECIPE)


def test_results_are_those_of_the_runs_and_shared_parts_are_made_once(
    mmkgc: Run, recipe: Path, tmp_path: Path
) -> None:
    done = mmkgc("batch", recipe.name, "--jobs", "2")
    assert done.code == 0, done.err
    found = json.loads(mmkgc("batch", "results", "batches/r", "--json").out)
    jobs = found["jobs"]
    assert len(jobs) == 4
    for job in jobs:
        results = json.loads((tmp_path / job["run"] / "results.json").read_text())
        assert job["metrics"] == results["metrics"]["test"]["both"]["realistic"]
        if job["scorer"] == "ikrl":
            stored = tomllib.loads((tmp_path / job["run"] / "config.toml").read_text())["stores"]
            assert stored["image"]["missing"] == (15 if job["rate"] else 0)
    stores = list((tmp_path / "batches" / "r" / "stores").glob("*.h5"))
    logs = [p.read_text() for p in (tmp_path / "batches" / "r").glob("jobs/*/log.txt")]
    assert len(stores) == sum(log.count("$ mmkgc features mask") for log in logs) == 1
    for group in found["groups"]:
        own = [
            job["metrics"]["mrr"] for job in jobs
            if (job["scorer"], job["rate"]) == (group["scorer"], group["rate"])
        ]  # fmt: skip
        assert group["mean"]["mrr"] == pytest.approx(statistics.fmean(own))
        spread = {"mrr": statistics.stdev(own)} if len(own) > 1 else {}
        assert group["deviation"].get("mrr") == spread.get("mrr")
    table = list(csv.DictReader(io.StringIO(mmkgc("batch", "results", "batches/r", "--csv").out)))
    assert [float(row["mrr"]) for row in table] == [job["metrics"]["mrr"] for job in jobs]
    shown = mmkgc("batch", "results", "batches/r").out
    assert all(f"{100 * group['mean']['mrr']:.2f}" in shown for group in found["groups"])


def test_a_result_that_was_not_expected_fails_the_batch(mmkgc: Run, recipe: Path) -> None:
    text = recipe.read_text().replace('"ikrl", ', "").replace("rates = [0.0, 0.5]", "rates = [0.0]")
    text = text.partition("[[exclude]]")[0].replace("[scorer.ikrl]\nmodel.dim = 4\n", "")
    expect = '\n[[expect]]\nscorer = "frequency"\nseed = {}\nvalue = {}\ntolerance = {}\n'
    recipe.write_text(text + expect.format(0, 50, 50) + expect.format(1, 100, 1))
    done = mmkgc("batch", recipe.name)
    assert done.code == 4
    errors = [line for line in done.err.splitlines() if line.startswith("error: ")]
    assert len(errors) == 1
    assert "expected mrr 100 within 1, graph-frequency-rate=0-seed=1-" in errors[0]
    assert errors[0].startswith("error: r.toml:")


def test_states_are_seen_from_outside(mmkgc: Run, recipe: Path) -> None:
    assert mmkgc("batch", "status", "batches/r").code == 3
    text = recipe.read_text().replace('"ikrl", ', "").partition("[scorer.ikrl]")[0]
    recipe.write_text(text.replace("rates = [0.0, 0.5]", "rates = [0.0]"))
    assert mmkgc("batch", recipe.name, "--shard", "1/2").code == 0
    done = mmkgc("batch", "status", "batches/r")
    assert done.out.count("finished") == 1
    plan = json.loads(mmkgc("batch", recipe.name, "--dry-run", "--json").out)
    assert [job["state"] for job in plan["jobs"]] == ["finished", "waiting"]
    measured = mmkgc("batch", recipe.name, "--dry-run", "--measure")
    assert "in total, one after the other" in measured.err


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # of submitit
def test_shards_go_to_a_cluster(
    mmkgc: Run, recipe: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    submitit = pytest.importorskip("submitit")
    from mmkgc_cli.runs.batches import slurm

    monkeypatch.chdir(tmp_path)
    text = recipe.read_text().replace('"ikrl", ', "").partition("[scorer.ikrl]")[0]
    recipe.write_text(text.replace("rates = [0.0, 0.5]", "rates = [0.0]"))
    done = mmkgc("batch", recipe.name, "--executor", "slurm", "--jobs", "2")
    assert (done.code, len(done.err.splitlines())) == (1, 1)  # there is no Slurm
    ids = slurm.submit(recipe, tmp_path / "batches" / "r", 2, 0.0, retry=False, cluster="local")
    assert len(ids) == 2
    for number in ids:
        task = submitit.local.local.LocalJob(tmp_path / "batches" / "r" / "slurm", number)
        assert task.result() == 0
    states = json.loads(mmkgc("batch", "status", "batches/r", "--json").out)["jobs"]
    assert [job["state"] for job in states] == ["finished", "finished"]
