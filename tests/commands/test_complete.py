"""`mmkgc complete` as a user meets it."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.loading import load_features
from mmkgc_cli.features.masks import MaskRequest, missing_mask
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.storage import write_graph
from tests.completion.small import communities
from tests.conftest import Outcome
from tests.features.small import edit, write

Run = Callable[..., Outcome]

GRAPH, VALUES = communities(60, 6)
SEEN = np.arange(60) % 6 > 0


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A graph of 60 entities, 50 of which have a vector."""
    write_graph(GRAPH, tmp_path / "g")
    write(tmp_path / "g" / "features" / "image.h5", GRAPH.entities, VALUES, SEEN)
    return tmp_path


COMPLETE = ["complete", "image", "--graph", "g"]


def test_gaps_are_filled_and_the_rest_stays_as_it_was(mmkgc: Run, folder: Path) -> None:
    done = mmkgc(*COMPLETE, "--strategy", "neighbours")
    assert done.code == 0, done.err
    assert "10 vectors made by neighbours" in done.out
    assert "nothing was hidden, so nothing can be measured" in done.out
    path = folder / "g" / "features" / "image.completed-neighbours.h5"
    assert not path.with_suffix(".json").exists()
    with FeatureStore(path) as store:
        assert store.generated is not None
        assert np.array_equal(store.generated, ~SEEN)
        assert np.array_equal(store.observed, SEEN)
        assert np.array_equal(store.read()[SEEN], VALUES[SEEN])
        assert store.metadata.completion["strategy"] == "neighbours"
        assert store.metadata.completion["train_id"] == store.metadata.train_id == GRAPH.train_id
    again = mmkgc(*COMPLETE, "--strategy", "neighbours")
    assert (again.code, again.out) == (3, "")
    assert "exists already; add --overwrite to replace it" in again.err
    twice = mmkgc(*COMPLETE, "--features", path, "--out", "twice.h5")
    assert twice.code == 3
    assert "was completed already; complete the store it was made from" in twice.err


def test_what_was_hidden_is_measured_and_not_in_the_store(mmkgc: Run, folder: Path) -> None:
    rate = ("--missing-rate", "0.4", "--mask-seed", "3", "--out", "c.h5")
    done = mmkgc(*COMPLETE, "--strategy", "ridge", *rate, "--json")
    assert done.code == 0, done.err
    report = json.loads(done.out)
    assert json.loads((folder / "c.json").read_text()) == report
    assert report["measures"]["ridge"]["count"] == report["hidden"] == 20
    hidden = missing_mask(MaskRequest("image", 0.4, 3), GRAPH.entities, SEEN)
    with FeatureStore(folder / "c.h5") as store:
        assert np.array_equal(store.observed, SEEN & ~hidden)
        assert np.array_equal(store.generated, ~SEEN | hidden)
        assert store.metadata.mask == {"rate": 0.4, "seed": 3, "pattern": "random"}
        assert not (store.read()[hidden] == VALUES[hidden]).all(axis=1).any()


def test_all_gen_replaces_every_vector(mmkgc: Run, folder: Path) -> None:
    done = mmkgc(*COMPLETE, "--strategy", "propagation", "--variant", "all-gen", "--out", "c.h5")
    assert done.code == 0, done.err
    with FeatureStore(folder / "c.h5") as store:
        assert store.generated is not None
        assert store.generated.all()
        assert np.array_equal(store.observed, SEEN)
        assert not (store.read() == VALUES).all(axis=1).any()
        assert store.metadata.completion["settings"] == {"iterations": 40, "folds": 5}


def test_auto_and_all_print_a_table_of_every_strategy(mmkgc: Run, folder: Path) -> None:
    done = mmkgc(*COMPLETE, "--strategy", "all", "--missing-rate", "0.4")
    assert done.code == 0, done.err
    names = ("random", "one", "zero", "mean", "neighbours", "propagation", "ridge", "kernel")
    assert [line.split()[0] for line in done.out.splitlines()[2:]] == list(names)
    saved = folder / "g" / "features" / "image.completed-all.json"
    assert list(json.loads(saved.read_text())["measures"]) == list(names)
    assert not saved.with_suffix(".h5").exists()
    done = mmkgc(*COMPLETE, "--strategy", "auto", "--out", "auto.h5", "--json")
    report = json.loads(done.out)
    assert report["auto"]["best"] == report["used"]
    assert list(report["auto"]["tried"]) == list(names)


def test_a_store_made_with_train_triples_is_refused_on_another_train_split(
    mmkgc: Run, folder: Path
) -> None:
    other = dataclasses.replace(GRAPH, train=GRAPH.train[1:])
    for strategy in ("ridge", "mean"):
        path = folder / f"{strategy}.h5"
        assert mmkgc(*COMPLETE, "--strategy", strategy, "--out", path).code == 0
        if strategy == "mean":  # which looks at no triple
            load_features(path, other)
        else:
            with pytest.raises(DataError, match="made from another train split"):
                load_features(path, other)
            load_features(path, other, allow_other_train=True)


@pytest.mark.parametrize("strategy", ["ridge", "mean"])
def test_a_store_of_another_train_split_is_completed_when_asked_and_stays_one(
    mmkgc: Run, folder: Path, strategy: str
) -> None:
    other = dataclasses.replace(GRAPH, train=GRAPH.train[1:])
    write_graph(other, folder / "other")
    mask = ("features", "mask", "g/features/image.h5", "--rate", "0.2", "--pattern", "degree")
    masked = folder / "masked.h5"
    assert mmkgc(*mask, "--graph", folder / "other", "--out", masked).code == 0
    completes = (*COMPLETE, "--strategy", strategy, "--features", masked, "--out", "done.h5")
    refused = mmkgc(*completes)
    assert refused.code == 3
    assert "made from another train split" in refused.err
    assert refused.err.rstrip().endswith("add --allow-other-train")
    done = mmkgc(*completes, "--allow-other-train")
    assert done.code == 0, done.err
    # What came of it is still from that split, whichever triples its strategy looked at.
    with pytest.raises(DataError, match="made from another train split"):
        load_features(folder / "done.h5", GRAPH)
    assert load_features(folder / "done.h5", GRAPH, allow_other_train=True).observed.all()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--missing-rate", "0"], 2, "missing rate 0 hides nothing: expected more than 0"),
        (["--missing-rate", "1"], 2, "missing rate 1 hides every vector"),
        (
            ["--missing-rate", "1.5"],
            2,
            "rate 1.5: expected the fraction of masked entities, 0 to 1",
        ),
        (["--missing-rate", "nan"], 2, "rate nan: expected the fraction"),
        (["--missing-rate", "0.001"], 3, "missing rate 0.001 of 50 observed vectors hides none"),
        (["--missing-rate", "0.999"], 3, "no image vector is observed among the 60 entities"),
        (["--strategy", "all"], 2, "say how many with --missing-rate"),
        (["--strategy", "all", "--variant", "all-gen"], 2, "strategy 'all' only measures"),
        (["--strategy", "rigde"], 2, "strategy 'rigde': did you mean 'ridge'?"),
        (["--features", "nowhere.h5"], 3, "nowhere.h5: no such file"),
        (["--out", "c.txt"], 2, "c.txt: expected a name that ends in .h5"),
    ],
)
def test_what_cannot_be_done_is_one_line(
    mmkgc: Run, folder: Path, arguments: list[str], code: int, message: str
) -> None:
    done = mmkgc(*COMPLETE, *arguments)
    assert (done.code, done.out) == (code, "")
    assert message in done.err
    assert len(done.err.splitlines()) == 1
    assert sorted(p.name for p in (folder / "g" / "features").iterdir()) == ["image.h5"]


def test_stores_that_cannot_be_completed_are_one_line(mmkgc: Run, folder: Path) -> None:
    def fails(path: Path, *arguments: str) -> str:
        done = mmkgc(*COMPLETE, "--features", path, "--out", "c.h5", *arguments)
        assert (done.code, done.out) == (3, ""), done.err
        assert len(done.err.splitlines()) == 1
        assert not (folder / "c.h5").exists()
        return done.err

    none = write(folder / "none.h5", GRAPH.entities, VALUES, np.zeros(60, dtype=bool))
    assert "no image vector is observed among the 60 entities" in fails(none)
    full = write(folder / "full.h5", GRAPH.entities, VALUES)
    assert "nothing is missing; hide some with --missing-rate, or say --variant all-gen" in fails(
        full
    )
    foreign = write(folder / "foreign.h5", [f"x{i}" for i in range(60)], VALUES, SEEN)
    assert "does not fit the graph 'small'" in fails(foreign)
    text = write(folder / "text.h5", GRAPH.entities, VALUES, SEEN, metadata=Metadata("text"))
    assert "holds text vectors, expected image" in fails(text)
    masked = Metadata("image", mask={"rate": 0.1})
    path = write(folder / "masked.h5", GRAPH.entities, VALUES, SEEN, metadata=masked)
    assert "was masked already" in fails(path, "--missing-rate", "0.4")
    other = write(
        folder / "o.h5", GRAPH.entities, VALUES, SEEN, metadata=Metadata("image", train_id="x")
    )
    assert "made from another train split" in fails(other)
    broken = write(folder / "nan.h5", GRAPH.entities, VALUES, SEEN)
    edit(broken, "vectors", 7, np.full(6, np.nan, dtype=np.float32))
    assert "the vector of 'e007' is not finite (1 row like it)" in fails(broken)


@pytest.mark.parametrize("width", [1, 4])
def test_constant_columns_and_width_1_are_completed(mmkgc: Run, folder: Path, width: int) -> None:
    write(folder / "c.h5", GRAPH.entities, np.ones((60, width), dtype=np.float32), SEEN)
    done = mmkgc(*COMPLETE, "--features", "c.h5", "--strategy", "all", "--missing-rate", "0.4")
    assert done.code == 0, done.err
    done = mmkgc(*COMPLETE, "--features", "c.h5", "--out", "d.h5")
    assert done.code == 0, done.err
    with FeatureStore(folder / "d.h5") as store:
        assert np.isfinite(store.read()).all()


def test_one_observed_vector_is_enough(mmkgc: Run, folder: Path) -> None:
    write(folder / "c.h5", GRAPH.entities, VALUES, np.arange(60) == 9)
    for strategy in ("neighbours", "propagation", "ridge"):
        for variant in ("gen", "all-gen"):
            done = mmkgc(*COMPLETE, "--features", "c.h5", "--out", "d.h5", "--overwrite",
                         "--strategy", strategy, "--variant", variant)  # fmt: skip
            assert done.code == 0, done.err
            with FeatureStore(folder / "d.h5") as store:
                # Of no other vector there is a mean: its own place stays at zero.
                assert np.isfinite(store.read()).all()
                assert store.read()[9].any() == (variant == "gen")
    done = mmkgc(*COMPLETE, "--features", "c.h5", "--out", "e.h5", "--strategy", "auto")
    assert done.code == 3
    assert "needs 2 of them, got 1; name a strategy" in done.err


MACO = ["maco.hidden=6", "maco.input_width=4", "maco.encoder_hidden=4", "maco.candidates=4"]


def test_maco_is_trained_in_a_run_directory(mmkgc: Run, folder: Path) -> None:
    small = [part for value in MACO for part in ("--set", value)]
    command = [*COMPLETE, "--strategy", "maco", "--epochs", "3", *small]
    done = mmkgc(*command, "--missing-rate", "0.2")
    assert done.code == 0, done.err
    assert "maco on small: 60 entities, image, " in done.err
    assert "epoch 3/3: loss " in done.err
    assert "hidden: centred " in done.err
    assert "20 vectors made by maco, " in done.out
    store = folder / "g" / "features" / "image.completed-maco.h5"
    assert json.loads(store.with_suffix(".json").read_text())["epochs"] == 3
    again = mmkgc(*command, "--out", "other.h5")
    assert again.code == 2
    assert "runs/g-image-maco: holds a run already" in again.err
    before = store.read_bytes()
    resumed = mmkgc("complete", "--resume", "runs/g-image-maco", "--json")
    assert resumed.code == 0, resumed.err
    assert json.loads(resumed.out)["measures"]["maco"]["count"] == 10
    assert store.read_bytes() == before


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--strategy", "ridge", "--epochs", "2"], "are for a strategy that is trained: say --str"),
        (["--strategy", "mako"], "strategy 'mako': did you mean 'maco'?"),
        (["--resume", "run"], "--resume takes its settings from the run"),
        (["--strategy", "maco", "--set", "maco.epochs"], "expected section.key=value"),
    ],
)
def test_flags_that_make_no_sense_are_refused(
    mmkgc: Run, folder: Path, arguments: list[str], message: str
) -> None:
    done = mmkgc(*COMPLETE, *arguments)
    assert done.code in (2, 3)
    assert message in done.err
    assert mmkgc("complete").code == 2
    seeded = mmkgc("complete", "--resume", "run", "--mask-seed", "0")
    assert (seeded.code, "only --graph and --json go with it" in seeded.err) == (2, True)
