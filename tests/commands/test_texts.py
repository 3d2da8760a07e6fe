"""The commands `mmkgc texts build` and `mmkgc features fetch`."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.modality_files import FeatureFile
from mmkgc_cli.kg.storage import write_graph
from tests.conftest import Outcome
from tests.features.small import vectors
from tests.kg.server import serving
from tests.kg.texts.upstream import item, write

Run = Callable[..., Outcome]


@pytest.fixture
def mids(tmp_path: Path) -> Path:
    """A graph of four entities, and published files that describe three of them."""
    items = {f"/m/{i}": item(f"Q{i}", f"label {i}") for i in range(1, 4)}
    write(tmp_path / "published", items=items)
    rows = np.array([[0, 0, 1], [1, 0, 2], [2, 0, 3]], dtype=np.int32)
    names = ["/m/1", "/m/2", "/m/3", "/m/4"]
    write_graph(Graph("mine", names, ["r"], rows, rows[:1], rows[1:2]), tmp_path / "g")
    return tmp_path / "published"


BUILD = ["texts", "build", "fb15k-237", "--graph", "g", "--source", "published"]


def test_tables_are_built_and_not_overwritten(mmkgc: Run, mids: Path, tmp_path: Path) -> None:
    done = mmkgc(*BUILD, "--allow-unverified")
    assert done.code == 0, done.err
    assert "entity_text.tsv: 3 entities of 4 of mine; not the registered table" in done.out
    assert "mid2name.txt: as published; not the registered table" in done.out
    assert "from fb15k-237_entity2wikidata.json" in done.out
    table = tmp_path / "g" / "texts" / "entity_text.tsv"
    assert table.read_text().splitlines()[1] == "/m/1\tQ1\tlabel 1\tNone\t"
    again = json.loads(mmkgc(*BUILD, "--allow-unverified", "--json").out)
    assert [table["already_there"] for table in again["tables"]] == [True] * 3
    assert (again["name"], again["graph"]) == ("fb15k-237", "mine")
    table.write_text("precious")
    refused = mmkgc(*BUILD, "--allow-unverified")
    assert (refused.code, refused.out) == (3, "")
    assert (
        "entity_text.tsv: exists with other contents; choose another --out, or pass --overwrite"
        in refused.err
    )
    assert mmkgc(*BUILD, "--allow-unverified", "--overwrite").code == 0
    assert mmkgc(*BUILD, "--allow-unverified", "--out", "elsewhere").code == 0
    assert (tmp_path / "elsewhere" / "numeric.txt").is_file()


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (BUILD, 3, "SHA-256"),
        ([*BUILD[:5], "--offline"], 1, "downloads are off"),
        ([*BUILD[:5], "--allow-unverified"], 2, "only files in --source"),
        (["texts", "build", "tiva", "--graph", "g"], 2, "tiva: has no registered texts"),
        (["texts", "build", "fb15k-237", "--graph", "nowhere"], 3, "nowhere/graph.h5: no such"),
        ([*BUILD[:6], "nowhere"], 3, "nowhere: no such folder"),
    ],
)
def test_an_error_of_texts_build_is_one_line(
    mmkgc: Run, mids: Path, arguments: list[str], code: int, message: str
) -> None:
    done = mmkgc(*arguments)
    assert (done.code, done.out) == (code, "")
    assert len(done.err.splitlines()) == 1
    assert message in done.err


def test_features_fetch_stores_published_features(
    mmkgc: Run, graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_graph(graph, tmp_path / "g")
    np.save(tmp_path / "v.npy", vectors(40, 8))

    def file(modality: str, url: str | None) -> FeatureFile:
        return FeatureFile(
            modality=modality, publisher="someone", file="v.npy", url=url,
            page="https://x.org/page", ids="entity2id.txt", parser="rows", licence="CC0",
            evidence="made up", verified=False,
        )  # fmt: skip

    with serving() as server:
        server.files["/v.npy"] = (tmp_path / "v.npy").read_bytes()
        files = (file("image", server.url("/v.npy")), file("audio", None))
        changes = {"order_id": graph.order_id, "features": files}
        entry = datasets.published("tiva").model_copy(update=changes)
        monkeypatch.setitem(datasets.registry(), "tiva", entry)
        fetch = ["features", "fetch", "tiva"]
        done = mmkgc(*fetch, "--graph", "g")
        assert done.code == 0, done.err
        assert "image: v.npy of someone (CC0)" in done.out
        assert "40 rows of 8 float32, 40 observed" in done.out
        assert "skipped: audio, which needs a browser (https://x.org/page)" in done.err
        again = mmkgc(*fetch, "image", "--graph", "g")
        assert (again.code, again.out) == (3, "")
        assert "image.h5: exists already; add --overwrite to replace it" in again.err
        forced = mmkgc(*fetch, "image", "--graph", "g", "--overwrite", "--offline", "--json")
        (store,) = json.loads(forced.out)["stores"]
        assert (store["publisher"], store["observed"]) == ("someone", 40)
        assert len(server.requests) == 1
    by_hand = mmkgc(*fetch, "audio", "--graph", "g")
    assert (by_hand.code, by_hand.out) == (1, "")
    assert "v.npy: no address gives it without a browser; get v.npy at https://x" in by_hand.err
    own = mmkgc(*fetch, "audio", "--graph", "g", "--source", "v.npy")
    assert own.code == 0, own.err
    shown = mmkgc("features", "show", "g").out
    assert shown.count("covers 100.0% of 40 entities of random, as in the graph") == 2
    assert "v.npy of someone, https://x.org/page" in shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["tiva"], "features can be downloaded without a browser; name a modality"),
        (["db15k", "--publisher", "native"], "without a browser; name a modality and get DB15K"),
        (["db15k", "--publisher", "mmk"], "has no features of db15k; did you mean 'mmkb'"),
        (["db15k", "--source", "x.pth"], "--source needs a modality; name it"),
        (["db15k", "--out", "x.h5"], "--out needs a modality; name it"),
        (["db15"], "db15: is not a known graph; did you mean 'db15k'"),
    ],
)
def test_an_invalid_fetch_is_one_line(
    mmkgc: Run, graph: Graph, tmp_path: Path, arguments: list[str], message: str
) -> None:
    write_graph(graph, tmp_path / "g")
    done = mmkgc("features", "fetch", *arguments, "--graph", "g")
    assert (done.code, done.out) == (2, "")
    assert len(done.err.splitlines()) == 1
    assert message in done.err


def test_a_benchmark_shows_its_tables_and_published_features(mmkgc: Run) -> None:
    shown = mmkgc("datasets", "db15k-clean").out
    for name, table in datasets.published("db15k").tables.items():
        assert f"{name} from {', '.join(table.made_of)}" in shown
        for upstream in table.made_of:
            assert datasets.upstream()[upstream].url in shown
    for file in datasets.published("db15k").features:
        assert f"{file.modality} by {file.publisher}: {file.file}" in shown
        assert (file.url or file.page) in shown
        assert file.evidence in shown
    entry = json.loads(mmkgc("datasets", "db15k-clean", "--json").out)
    assert len(entry["features"]) == 4
    assert set(entry["upstream"]) == {
        name for table in entry["tables"].values() for name in table["made_of"]
    }
