from __future__ import annotations

import csv
import io
import json
import tomllib
from collections import Counter
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.runs.batches.stores import Completed, Masked
from tests.batches.small import jobs_of, problems_of, write_graph, write_recipe
from tests.conftest import Outcome
from tests.features.small import write

Run = Callable[..., Outcome]
WITHOUT = """
[batch]
graphs = ["graph"]
scorers = ["ikrl"]

[features]
image = "{graph}/image.h5"

[mask]
rates = [0.0, 0.5]
"""
SECTION = """
[complete]
strategies = ["none", "mean", "maco"]
modalities = ["image"]

[complete.maco]
preset = "released"
alpha = 0.1
learnt_input = true
encoder = "embedding"
"""


@pytest.fixture(autouse=True)
def _here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_graph(tmp_path)


def test_folders_of_batches_without_completion_stay_valid() -> None:
    # Written down before there was any: another digest would run finished jobs again.
    assert [job.name for job in jobs_of(WITHOUT)] == [
        "graph-ikrl-rate=0-seed=0-fa28a268",
        "graph-ikrl-rate=0.5-seed=0-b5feeda6",
    ]


def test_strategies_are_an_axis_and_one_completes_nothing() -> None:
    found = jobs_of(WITHOUT + SECTION)
    assert [(job.rate, job.strategy) for job in found] == [
        (rate, strategy) for rate in (0.0, 0.5) for strategy in ("none", "mean", "maco")
    ]
    assert [job.name.rpartition("-seed")[0] for job in found[:2]] == [
        "graph-ikrl-rate=0-strategy=none",
        "graph-ikrl-rate=0-strategy=mean",
    ]
    digests = [job.name.rpartition("-")[2] for job in found]
    assert len(set(digests)) == len(digests)
    plain = [job.name.rpartition("-")[2] for job in jobs_of(WITHOUT)]
    assert [digests[0], digests[3]] == plain
    kinds = [[type(store) for store in job.stores] for job in found]
    assert kinds == [[], [Completed], [Completed], [Masked], [Completed], [Completed]]


def test_a_scorer_without_vectors_has_one_job_whatever_the_strategies() -> None:
    text = WITHOUT.replace('["ikrl"]', '["transe"]') + SECTION
    assert [(job.rate, job.strategy) for job in jobs_of(text)] == [(0.0, "none"), (0.5, "none")]


def test_selectors_name_strategies() -> None:
    text = WITHOUT + SECTION + '[[exclude]]\nstrategy = "mean"\nrate = 0.0\n'
    text += '[[include]]\nstrategy = "ridge"\nrate = 0.25\n'
    found = [(job.rate, job.strategy) for job in jobs_of(text)]
    assert (0.0, "mean") not in found
    assert found[-1] == (0.25, "ridge")
    assert len(found) == 6


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ('variant = "gen"', 'variant = "all-gen"'),
        ("seed = 3", "seed = 4"),
        ("alpha = 0.1", "alpha = 0.2"),
        ("[0.5]", "[0.25]"),
        ("image.h5", "other.h5"),
        ("seed = 0", "seed = 1"),
        ('pattern = "random"', 'pattern = "degree"'),
    ],
)
def test_what_decides_vectors_decides_the_name_of_their_store_and_of_their_job(
    old: str, new: str
) -> None:
    section = SECTION.replace('"none", "mean", ', "").replace(
        '["image"]', '["image"]\nvariant = "gen"\nseed = 3'
    )
    text = WITHOUT.replace("[0.0, 0.5]", '[0.5]\nseed = 0\npattern = "random"') + section
    assert old in text
    (before,), (after,) = jobs_of(text), jobs_of(text.replace(old, new))
    assert before.name != after.name
    assert before.stores[0].name != after.stores[0].name


def test_made_vectors_have_the_seed_of_the_job_or_one_for_all() -> None:
    text = WITHOUT.replace('["ikrl"]', '["ikrl"]\nseeds = [4, 7]') + SECTION

    def seeds(text: str) -> Counter[int]:
        made = (store for job in jobs_of(text) for store in job.stores)
        return Counter(store.seed for store in made if isinstance(store, Completed))

    assert seeds(text) == {4: 4, 7: 4}
    one = text.replace("[complete.maco]", "seed = 9\n[complete.maco]")
    assert seeds(one) == {9: 8}
    # Shared by both jobs then.
    assert len({store.name for job in jobs_of(one) for store in job.stores}) == 4 + 1


def test_a_trained_strategy_has_a_run_and_goes_on_with_it(tmp_path: Path) -> None:
    (store,) = jobs_of(WITHOUT + SECTION)[-1].stores
    path = tmp_path / "stores" / store.name
    run = path.with_suffix(".run")
    assert store.command(path) == [
        "complete", "image", "--graph", "graph", "--features", "graph/image.h5",
        "--strategy", "maco", "--variant", "gen", "--seed", "0", "--out", str(path), "--overwrite",
        "--missing-rate", "0.5", "--mask-seed", "0", "--pattern", "random",
        "--run", str(run), "--preset", "released", "--set", "maco.alpha=0.1",
        "--set", "maco.learnt_input=true", "--set", "maco.encoder=embedding",
    ]  # fmt: skip
    run.mkdir(parents=True)
    (run / ".lock").write_text("")
    assert "--resume" not in store.command(path)  # killed before it had written what to resume
    (run / "config.toml").write_text("")
    assert store.command(path) == ["complete", "--resume", str(run)]
    assert isinstance(store, Completed)
    closed = replace(store, strategy="mean", trained=False, settings={}, mask=None)
    assert closed.command(path)[-2:] == [str(path), "--overwrite"]


def test_a_recipe_that_takes_stores_of_another_train_split_completes_them_too() -> None:
    text = WITHOUT.replace("[mask]", "allow_other_train = true\n[mask]") + SECTION
    for job in jobs_of(text):
        for store in job.stores:
            completes = isinstance(store, Completed)
            assert completes == ("--allow-other-train" in store.command(Path("s.h5")))


@pytest.mark.parametrize("rates", ["0.0, 0.5", "0.0"])
def test_a_modality_to_mask_that_no_job_has_is_refused(rates: str) -> None:
    text = WITHOUT.replace("0.0, 0.5", rates) + 'modalities = ["imgae"]\n'
    assert problems_of(text) == ["r.toml:11: no job has a store of 'imgae'; did you mean 'image'?"]
    assert jobs_of(text.replace("imgae", "image"))


def test_every_mistake_about_completion_is_shown_with_its_line_and_the_nearest_name() -> None:
    text = WITHOUT + SECTION.replace('"mean"', '"meen"').replace("alpha", "alhpa")
    text = text.replace('modalities = ["image"]', 'modalities = ["imgae"]')
    text = text.replace("preset", "seed") + '[[exclude]]\nstrategy = "rigde"\n'
    assert problems_of(text) == [
        "r.toml:13: no strategy 'meen'; did you mean 'mean'?",
        "r.toml:14: no job has a store of 'imgae'; did you mean 'image'?",
        "r.toml:17: no key complete.maco.seed; it is complete.seed",
        "r.toml:18: no key complete.maco.alhpa; did you mean 'alpha'?",
        "r.toml:21: no strategy 'rigde'; did you mean 'ridge'?",
    ]


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ("[complete]\n", "r.toml:11: complete.strategies is missing: names of strategies; none"),
        ('[complete]\nstrategies = ["all"]\n', "r.toml:12: no strategy 'all'; "),
        (
            '[complete]\nstrategies = ["mean"]\nvariants = "gen"\n',
            "r.toml:13: no key complete.variants; did you mean 'variant'?",
        ),
        (
            '[complete]\nstrategies = ["mean"]\n[complete.mean]\nx = 1\n',
            "r.toml:13: 'mean' has no settings; remove it",
        ),
        (
            '[complete]\nstrategies = ["mean"]\nmaco = 3\n',
            "r.toml:13: complete.maco is a section; write [complete.maco]",
        ),
        (
            '[complete]\nstrategies = ["maco"]\n[complete.maco]\nalpha = [0.1, 1.0]\n',
            "r.toml:14: complete.maco.alpha: expected a text, a number or a bool, got [0.1, 1.0]",
        ),
        (
            '[complete]\nstrategies = ["maco"]\n[complete.maco]\npreset = "papr"\n',
            "r.toml:14: complete.maco.preset: expected paper or released, got 'papr'",
        ),
        (
            '[[include]]\nstrategy = "mean"\n',
            "r.toml:11: [[include]] names a strategy, and there is no [complete]",
        ),
    ],
)
def test_what_is_no_completion_says_what_was_expected(section: str, said: str) -> None:
    found = problems_of(WITHOUT + section)
    assert len(found) == 1
    assert found[0].startswith(said)


def test_jobs_train_with_what_was_completed_once(mmkgc: Run, tmp_path: Path) -> None:
    graph = load_graph(tmp_path / "graph")
    rng = np.random.default_rng(0)
    vectors = rng.normal(size=(len(graph.entities), 3)).astype("float32")
    source = tmp_path / "graph" / "image.h5"
    write(source, list(graph.entities), vectors, metadata=Metadata("image"))
    text = WITHOUT.replace('["ikrl"]', '["ikrl"]\nseeds = [0, 1]').replace("[0.0, 0.5]", "[0.5]")
    text = text.replace("[mask]", 'fill = "zero"\n[mask]')
    text += '[complete]\nstrategies = ["none", "ridge"]\nseed = 0\n'
    text += "[settings]\ntraining.epochs = 1\nmodel.dim = 4\n"
    text += '[[exclude]]\nstrategy = "none"\nseed = 1\n'
    write_recipe(tmp_path, text)
    plan = json.loads(mmkgc("batch", "r.toml", "--dry-run", "--json").out)["jobs"]
    assert Counter(job["strategy"] for job in plan) == {"none": 1, "ridge": 2}
    assert "strategy=ridge" in mmkgc("batch", "r.toml", "--dry-run").out
    done = mmkgc("batch", "r.toml", "--jobs", "2")
    assert done.code == 0, done.err
    folder = tmp_path / "batches" / "r"
    logs = "".join(path.read_text() for path in folder.glob("jobs/*/log.txt"))
    assert logs.count("$ mmkgc complete") == 1
    assert logs.count("$ mmkgc features mask") == 1
    hidden = {}
    for job in json.loads(mmkgc("batch", "results", "batches/r", "--json").out)["jobs"]:
        stored = tomllib.loads((tmp_path / job["run"] / "config.toml").read_text())["stores"]
        strategy = job["strategy"]
        assert stored["image"]["missing"] == (15 if strategy == "none" else 0)
        assert stored["image"]["generated"] == (0 if strategy == "none" else 15)
        assert stored["image"].get("completion", {}).get("strategy", "none") == strategy
        path = tomllib.loads((tmp_path / job["run"] / "config.toml").read_text())["features"]
        with FeatureStore(Path(path["image"])) as store:
            hidden[strategy] = frozenset(np.flatnonzero(~store.observed))
    # One mask, whoever takes the vectors away; and what was hidden is what is measured.
    assert len(set(hidden.values())) == 1
    measured = json.loads(next(folder.glob("stores/image-ridge-*.json")).read_text())
    assert measured["hidden"] == 15
    table = list(csv.DictReader(io.StringIO(mmkgc("batch", "results", "batches/r", "--csv").out)))
    assert Counter(row["strategy"] for row in table) == {"none": 1, "ridge": 2}
    shown = mmkgc("batch", "results", "batches/r").out.splitlines()
    assert "strategy" in shown[0]
    assert sum(" ridge " in line and " 2 " in line for line in shown) == 1  # a group of two seeds
    against = mmkgc("batch", "results", "batches/r", "--against", "none")
    assert "one seed says nothing" in against.out
    assert mmkgc("batch", "results", "batches/r", "--against", "mean").code == 2
    assert mmkgc("batch", "results", "batches/r", "--against", "none", "--csv").code == 2
