"""Tests of `mmkgc features` on the command line."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.features import exporting
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import write_graph
from tests.conftest import Outcome
from tests.features.small import edit, vectors

Run = Callable[..., Outcome]


@pytest.fixture
def folder(graph: Graph, tmp_path: Path) -> Path:
    """A graph of 40 entities, and features in its order: two rows zero, one at the mean."""
    write_graph(graph, tmp_path / "g")
    values = vectors(40, 16)
    values[3] = values[4] = 0
    values[9] = np.delete(values, [3, 4, 9], axis=0).mean(axis=0)
    np.save(tmp_path / "v.npy", values)
    return tmp_path


IMPORT = ["features", "import", "v.npy", "--modality", "image", "--graph", "g", "--row-order"]


def test_features_are_imported_shown_and_checked(mmkgc: Run, folder: Path) -> None:
    done = mmkgc(*IMPORT, "graph", "--zero-is-missing", "--encoder", "vit", "--dtype", "float16")
    assert done.code == 0, done.err
    assert "40 rows of 16 float16, 38 observed" in done.out
    assert "2 rows all zero: now unobserved" in done.out
    shown = mmkgc("features", "show", "g").out
    assert "observed 38 (95.0%), without a vector 2" in shown
    assert "encoder    vit" in shown
    assert "covers 95.0% of 40 entities of random, as in the graph" in shown
    checked = mmkgc("features", "check", "g/features/image.h5", "--graph", "g")
    assert checked.code == 0, checked.err
    assert "1 row at the mean of the others, probably filled (entity 9)" in checked.out
    metadata = json.loads(mmkgc("features", "check", "g/features/image.h5", "--json").out)
    assert metadata["check"]["mean_filled"] == {"count": 1, "examples": ["entity 9"]}
    assert json.loads(mmkgc("features", "show", "g", "--json").out)["stores"][0]["observed"] == 38
    again = mmkgc(*IMPORT, "graph")
    assert (again.code, again.out) == (3, "")
    assert "image.h5: exists already; add --overwrite to replace it" in again.err
    done = mmkgc(*IMPORT, "graph", "--overwrite", "--json")
    assert json.loads(done.out)["zero"] == 2


def test_a_check_fails_on_stores_that_training_cannot_use(
    mmkgc: Run, folder: Path, graph: Graph
) -> None:
    mmkgc(*IMPORT, "graph")
    path = folder / "g" / "features" / "image.h5"
    edit(path, "vectors", 5, np.full(16, np.nan, dtype=np.float32))
    done = mmkgc("features", "check", path)
    assert done.code == 3
    assert "1 row not finite (entity 5)" in done.out
    assert "error: " in done.err
    assert "1 row not finite, 0 missing rows" in done.err
    data = path.read_bytes()
    path.write_bytes(data[:-9])
    assert mmkgc("features", "check", path).code == 3
    assert "truncated" in mmkgc("features", "show", path).err
    assert "no such file" in mmkgc("features", "show", "nowhere.h5").err
    assert "has no feature stores" in mmkgc("features", "show", folder).err


def test_ids_of_rows_are_never_guessed(mmkgc: Run, folder: Path) -> None:
    done = mmkgc("features", "import", "v.npy", "--modality", "image", "--graph", "g")
    assert done.code == 2
    assert "give them with --ids FILE, or" in done.err
    done = mmkgc("features", "import", "v.npy", "--modality", "image")
    assert (done.code, "add --graph DIR or --out FILE" in done.err) == (2, True)
    done = mmkgc("features", "import", "v.npy", "--modality", "../x", "--graph", "g")
    assert (done.code, "expected lower-case letters" in done.err) == (2, True)
    assert not (folder / "g" / "features").exists()


def test_export_follows_the_graph_and_may_leave_missing_rows_out(
    mmkgc: Run, folder: Path, graph: Graph
) -> None:
    mmkgc(*IMPORT, "graph", "--zero-is-missing")
    store = "g/features/image.h5"
    done = mmkgc("features", "export", store, "x.npy", "--graph", "g")
    assert "x.npy and x.ids.txt written" in done.err
    assert "40 rows, 2 of them zero" in done.out
    expected = np.load(folder / "v.npy")
    assert np.array_equal(np.load(folder / "x.npy"), expected)
    done = mmkgc("features", "export", store, "y.npy", "--observed-only", "--json")
    assert json.loads(done.out) == {
        "files": ["y.npy", "y.ids.txt"], "rows": 38, "without_vector": 0
    }  # fmt: skip
    names = (folder / "y.ids.txt").read_text().splitlines()
    assert names == [name for i, name in enumerate(graph.entities) if i not in (3, 4)]


def test_an_interrupted_export_is_finished_by_the_same_command(
    mmkgc: Run, folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file of vectors is written last; if it exists, the export is complete."""
    mmkgc(*IMPORT, "graph")
    export = ("features", "export", "g/features/image.h5", "x.npy")
    with monkeypatch.context() as patch:
        patch.setattr(exporting, "_blocks", _interrupt)
        assert mmkgc(*export).code == 130
    assert sorted(path.name for path in folder.glob("x*")) == ["x.ids.txt"]
    assert mmkgc(*export).code == 0
    assert np.array_equal(np.load(folder / "x.npy"), np.load(folder / "v.npy"))


def _interrupt(*_: object) -> None:
    raise KeyboardInterrupt


@pytest.mark.parametrize("pattern", ["random", "degree", "relation"])
def test_a_mask_and_its_list_remove_the_same_vectors(
    mmkgc: Run, folder: Path, graph: Graph, pattern: str
) -> None:
    mmkgc(*IMPORT, "graph", "--zero-is-missing")
    store = "g/features/image.h5"
    options = ["--rate", "0.5", "--seed", "7", "--pattern", pattern, "--graph", "g"]
    done = mmkgc("features", "mask", store, "--out", "m.h5", *options)
    assert "19 of 38 observed rows masked" in done.out, done.err
    mmkgc("features", "mask", store, "--out", "m.txt", *options)
    done = mmkgc("features", "mask", store, "--out", "n.h5", "--mask-file", "m.txt", "--json")
    assert json.loads(done.out)["missing"] == 19
    with FeatureStore(folder / "m.h5") as rated, FeatureStore(folder / "n.h5") as listed:
        assert int(rated.observed.sum()) == 19
        assert np.array_equal(rated.observed, listed.observed)
        assert np.array_equal(rated.read(), listed.read())
        assert not rated.read()[~rated.observed].any()
        assert rated.metadata.mask["rate"] == 0.5
        assert rated.metadata.train_id == ("" if pattern == "random" else graph.train_id)
        assert listed.metadata.mask == {"file": "m.txt"}
    done = mmkgc("features", "mask", "m.h5", "--out", "mm.h5", "--rate", "0.5")
    assert (done.code, "was masked already" in done.err) == (3, True)


def test_wrong_masks_are_usage_errors(mmkgc: Run, folder: Path) -> None:
    mmkgc(*IMPORT, "graph")
    store = "g/features/image.h5"
    for arguments, words in (
        (["--out", "m.h5"], "expected one of --rate and --mask-file"),
        (["--out", "m.csv", "--rate", "0.1"], "use .h5 for a store"),
        (["--out", "m.h5", "--rate", "1.1"], "expected the fraction of masked entities, 0 to 1"),
        (["--out", "m.h5", "--rate", "0.1", "--pattern", "degree"], "add --graph DIR"),
    ):
        done = mmkgc("features", "mask", store, *arguments)
        assert (done.code, words in done.err) == (2, True), done.err


def test_shards_are_merged_and_conflicts_need_a_preference(mmkgc: Run, folder: Path) -> None:
    values = np.load(folder / "v.npy") + 1
    for name, rows in (("a", range(25)), ("b", range(20, 40))):
        np.save(folder / f"{name}.npy", values[list(rows)] + (name == "b"))
        (folder / f"{name}.txt").write_text("".join(f"entity {i}\n" for i in rows))
        done = mmkgc("features", "import", f"{name}.npy", "--modality", "image", "--ids",
                     f"{name}.txt", "--out", f"{name}.h5")  # fmt: skip
        assert done.code == 0, done.err
    done = mmkgc("features", "merge", "a.h5", "b.h5", "--out", "c.h5")
    assert done.code == 3
    assert "b.h5: 'entity 20' has a vector in a.h5 too; select one with --prefer" in done.err
    for prefer, first_of_b in (("first", 25), ("last", 20)):
        done = mmkgc("features", "merge", "a.h5", "b.h5", "--out", "c.h5", "--prefer", prefer,
                     "--overwrite", "--json")  # fmt: skip
        assert json.loads(done.out)["rows"] == 40
        with FeatureStore(folder / "c.h5") as store:
            assert np.array_equal(store.read()[:first_of_b], values[:first_of_b])
            assert np.array_equal(store.read()[first_of_b:], values[first_of_b:] + 1)
    mmkgc("features", "import", "v.npy", "--modality", "image", "--graph", "g", "--row-order",
          "graph", "--out", "v.h5", "--encoder", "other")  # fmt: skip
    done = mmkgc("features", "merge", "a.h5", "v.h5", "--out", "d.h5")
    assert "v.h5: encoder 'other', but a.h5 has ''" in done.err
    done = mmkgc("features", "merge", "a.h5", "--out", "d.h5")
    assert (done.code, "expected two or more" in done.err) == (2, True)
