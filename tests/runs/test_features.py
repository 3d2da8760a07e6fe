"""Runs with features: read before they begin, recorded, held to when they go on."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch

from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.config import read_config_file
from mmkgc_cli.state.atomic import read_json
from mmkgc_cli.state.checkpoints import Checkpoints
from mmkgc_cli.state.weights import load_weights
from tests.conftest import Outcome
from tests.features.small import edit, vectors, write

Run = Callable[..., Outcome]
WIDTH = 6
QUICK = ["--set", "model.dim=4", "--set", "validation.every=1", "--set", "training.threads=1"]


@pytest.fixture
def stores(graph: Graph, tmp_path: Path) -> Path:
    """A graph and stores of images (three of four entities) and texts (all) beside it."""
    write_graph(graph, tmp_path / "graph")
    n = len(graph.entities)
    seen = np.arange(n) % 4 != 0
    for seed, (modality, observed) in enumerate({"image": seen, "text": seen | True}.items()):
        metadata = Metadata(modality, encoder="hand", graph=graph.name)
        values = vectors(n, WIDTH, seed) * observed[:, None]
        write(tmp_path / f"{modality}.h5", graph.entities, values, observed, metadata=metadata)
    return tmp_path


def train(mmkgc: Run, scorer: str, *arguments: str, run: str = "run") -> Outcome:
    always = ["--graph", "graph", "--run", run, "--epochs", "2", *QUICK]
    return mmkgc("train", scorer, *always, *arguments)


def test_a_run_records_the_store_and_its_results_say_how_it_was_used(
    mmkgc: Run, stores: Path
) -> None:
    done = train(mmkgc, "ikrl", "--features", "image=image.h5", "--fill", "mean")
    assert done.code == 0, done.err
    config = read_config_file(stores / "run" / "config.toml")
    assert config["features"]["image"] == str(stores / "image.h5")
    assert config["features"]["fill"] == "mean"
    record = config["stores"]["image"]
    assert (record["width"], record["encoder"], record["use"]) == (WIDTH, "hand", "trainable")
    assert (record["observed"], record["missing"], record["fill"]) == (30, 10, "mean")
    # Weights hold what was made of the features: a store is not asked for any more.
    (stores / "image.h5").unlink()
    done = mmkgc("eval", "run")
    assert done.code == 0, done.err
    assert read_json(stores / "run" / "results.json")["model"]["features"] == {"image": record}
    shown = mmkgc("runs", "show", "run").out
    assert "image: 30 of 40 entities, mean for 10, trainable, hand" in shown


def test_several_stores_may_follow_one_flag_or_come_from_a_file(mmkgc: Run, stores: Path) -> None:
    both = ["image=image.h5", "text=text.h5"]
    done = train(mmkgc, "tbkgc", "--features", *both, "--fill", "zero", run="a")
    assert done.code == 0, done.err
    (stores / "c.toml").write_text(
        '[features]\nimage = "image.h5"\ntext = "text.h5"\nfill = "zero"\n'
    )
    done = train(mmkgc, "tbkgc", "--config", "c.toml", run="b")
    assert done.code == 0, done.err
    flags = [part for pair in both for part in ("--features", pair)]
    done = train(mmkgc, "tbkgc", *flags, "--fill", "zero", run="c")
    assert done.code == 0, done.err
    digests = {load_weights(stores / r / "model.safetensors")[1]["sha256"] for r in "abc"}
    assert len(digests) == 1


def test_frozen_vectors_are_in_the_weights_and_not_in_checkpoints(mmkgc: Run, stores: Path) -> None:
    done = train(
        mmkgc, "ikrl", "--features", "image=image.h5", "--fill", "zero", "--freeze-features"
    )
    assert done.code == 0, done.err
    weights, _ = load_weights(stores / "run" / "model.safetensors")
    assert weights["images.vectors"].shape == (40, WIDTH)
    found = Checkpoints(stores / "run" / "checkpoints", 1).latest()
    assert found is not None
    assert "images.vectors" not in found[1]["program"]["scorer"]
    assert read_config_file(stores / "run" / "config.toml")["stores"]["image"]["use"] == "frozen"
    assert mmkgc("eval", "run").code == 0


@pytest.mark.parametrize("scorer", ["ikrl", "rsme"])
def test_a_resumed_training_ends_as_an_undisturbed_one(
    mmkgc: Run, stores: Path, scorer: str
) -> None:
    asked = [scorer, "--features", "image=image.h5", "--fill", "random"]
    assert train(mmkgc, *asked).code == 0
    (stores / "image.h5").rename(stores / "moved.h5")
    done = mmkgc("train", "--resume", "run", "--epochs", "4")
    assert done.code == 3
    assert "image.h5: no such file" in done.err
    done = mmkgc("train", "--resume", "run", "--epochs", "4", "--features", "image=moved.h5")
    assert done.code == 0, done.err
    asked[2] = "image=moved.h5"
    assert train(mmkgc, *asked, "--epochs", "4", run="whole").code == 0
    ends = [
        Checkpoints(stores / run / "checkpoints", 1).latest()[1]["program"]["scorer"]  # type: ignore[index]
        for run in ("run", "whole")
    ]
    assert all(torch.equal(ends[0][name], ends[1][name]) for name in ends[1])


def test_another_store_is_not_resumed_with(mmkgc: Run, stores: Path, graph: Graph) -> None:
    assert train(mmkgc, "ikrl", "--features", "image=image.h5", "--fill", "zero").code == 0
    other = vectors(len(graph.entities), WIDTH + 1, 9)
    write(stores / "other.h5", graph.entities, other, metadata=Metadata("image"))
    done = mmkgc("train", "--resume", "run", "--epochs", "4", "--features", "image=other.h5")
    assert done.code == 3
    assert "other.h5: not the store of this run: expected SHA-256" in done.err
    assert "6 wide, got" in done.err
    done = mmkgc("train", "--resume", "run", "--epochs", "4", "--features", "text=text.h5")
    assert done.code == 3
    assert "--features text: the run has features image" in done.err


def foreign(stores: Path, graph: Graph) -> str:
    write(stores / "foreign.h5", ["a", "b"], vectors(2, WIDTH), metadata=Metadata("image"))
    return "foreign.h5: does not fit the graph 'random'"


def infinite(stores: Path, graph: Graph) -> str:
    path = stores / "infinite.h5"
    values = vectors(len(graph.entities), WIDTH)
    edit(write(path, graph.entities, values, metadata=Metadata("image")), "vectors", 3, np.inf)
    return "infinite.h5: expected finite numbers, got 1 row with NaN or infinity"


BAD = {
    "none": (["ikrl"], 3, "ikrl: expected features image, got none"),
    "one of two": (
        ["tbkgc", "--features", "image=text.h5"],
        3,
        "tbkgc: expected features image and text, got image",
    ),
    "one of those it is set to": (
        ["mocme", "--features", "text=text.h5"],
        3,
        "add --features image=STORE, or see mmkgc scorers show mocme for the setting",
    ),
    "one it is not set to": (
        ["ikrl", "--features", "image=image.h5", "text=text.h5"],
        3,
        "expected image; see mmkgc scorers show ikrl for the setting of its modalities",
    ),
    "one too many": (
        ["ikrl", "--features", "image=image.h5", "text=text.h5"],
        3,
        "text.h5: ikrl takes no features 'text', expected image",
    ),
    "none wanted": (
        ["rotate", "--features", "image=image.h5"],
        3,
        "image.h5: rotate takes no features 'image', expected none",
    ),
    "another modality": (
        ["ikrl", "--features", "image=text.h5"],
        3,
        "text.h5: expected vectors of 'image', got vectors of 'text'",
    ),
    "gaps": (
        ["ikrl", "--features", "image=image.h5"],
        3,
        "image.h5: 10 of 40 entities of 'random' have no image vector; choose a fill with --fill",
    ),
    "no file": (["ikrl", "--features", "image=no.h5"], 3, "no.h5: no such file"),
    "no pair": (["ikrl", "--features", "image.h5"], 2, "--features image.h5: expected MODALITY="),
    "twice": (
        ["ikrl", "--features", "image=a", "image=b"],
        2,
        "--features image=b: image is 'a' already",
    ),
    "no such fill": (
        ["ikrl", "--set", "features.fill=men"],
        3,
        "--set features.fill: input should be 'none', 'zero', 'mean', 'random' or 'one'",
    ),
    "nothing to freeze": (
        ["rsme", "--features", "image=image.h5", "--freeze-features"],
        3,
        "--freeze-features: no key model.freeze_features",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_what_does_not_fit_is_one_line_before_there_is_a_run(
    mmkgc: Run, stores: Path, name: str
) -> None:
    arguments, code, words = BAD[name]
    done = train(mmkgc, *arguments)
    assert done.code == code
    assert words in done.err
    assert len(done.err.splitlines()) == 1
    assert not (stores / "run").exists()


@pytest.mark.parametrize("make", [foreign, infinite])
def test_a_store_that_does_not_fit_is_named(
    mmkgc: Run, stores: Path, graph: Graph, make: Callable[[Path, Graph], str]
) -> None:
    words = make(stores, graph)
    done = train(mmkgc, "ikrl", "--features", f"image={words.split(':')[0]}")
    assert (done.code, words in done.err) == (3, True), done.err
    assert not (stores / "run").exists()


def test_a_scorer_that_uses_the_mask_needs_no_fill(mmkgc: Run, stores: Path) -> None:
    (stores / "scorers").mkdir()
    (stores / "scorers" / "masked.py").write_text(MASKED)
    done = train(mmkgc, "masked", "--features", "image=image.h5")
    assert done.code == 0, done.err
    record = read_config_file(stores / "run" / "config.toml")["stores"]["image"]
    assert (record["missing"], record["fill"]) == (10, "none")


MASKED = '''
import torch
from torch import nn

from mmkgc_cli.ops import Metric, lookup
from mmkgc_cli.scoring.contract import NO_FEATURES, Scorer, ScorerConfig
from pydantic import Field


class Small(ScorerConfig):
    dim: int = Field(4, description="width")


class Masked(Scorer):
    """DistMult that adds images where there are some."""

    Config = Small
    metric = Metric.dot
    modalities = ("image",)
    uses_mask = True
    citation = "A scorer of the tests, published nowhere."

    def __init__(self, config, n_entities, n_relations, generator, features=NO_FEATURES):
        super().__init__(config, n_entities, n_relations, generator, features)
        self.entities = nn.Parameter(torch.randn(n_entities, config.dim, generator=generator))
        self.relations = nn.Parameter(torch.randn(n_relations, config.dim, generator=generator))
        self.register_buffer("seen", features["image"].observed[:, None].float())

    def query(self, entities, relations, side):
        return self.candidates(entities) * lookup(self.relations, relations)

    def candidates(self, entities, relation=None, side=None):
        rows = self.entities * (1 + self.seen)
        return rows if entities is None else rows[entities]


SCORER = Masked
'''


@pytest.mark.parametrize("scorer", ["ikrl", "rsme"])
def test_training_with_a_projection_repeats_and_depends_on_threads_by_rounding_alone(
    mmkgc: Run, stores: Path, scorer: str
) -> None:
    before = torch.get_num_threads()
    ends = []
    try:
        # 100 steps: 25 epochs of 240 triples, 64 at a time.
        for run, threads in (("a", 1), ("b", 1), ("c", 2), ("d", 2)):
            done = train(
                mmkgc, scorer, "--features", "image=image.h5", "--fill", "mean", "--epochs", "25",
                "--batch-size", "64", "--set", "validation.every=25", "--set", "model.dim=65",
                "--set", f"training.threads={threads}", run=run,
            )  # fmt: skip
            assert done.code == 0, done.err
            ends.append(load_weights(stores / run / "model.safetensors")[0])
    finally:
        torch.set_num_threads(before)
    for first, second in ((0, 1), (2, 3)):
        assert all(torch.equal(ends[first][name], ends[second][name]) for name in ends[first])
    for name, weights in ends[0].items():
        torch.testing.assert_close(weights, ends[2][name], atol=1e-5, rtol=0)
