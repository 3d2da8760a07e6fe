from __future__ import annotations

import hashlib
import io
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.fetching import (
    FetchRequest,
    choose_file,
    downloadable_files,
    fetch_features,
    known_files,
)
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.downloads import Cache, Unavailable
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.modality_files import FeatureFile, UpstreamFile
from tests.features.small import vectors
from tests.kg.server import Server, serving
from tests.kg.test_graph import renumbered

VECTORS = vectors(40, 8)
INDEX = "FB15K_ImageIndex.txt"


def npy(values: Any) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


@pytest.fixture
def server(graph: Graph, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves vectors of a graph that is registered as mkg-y during the test."""
    vocabulary = "".join(f"{name}\t{i}\n" for i, name in enumerate(graph.entities)).encode()
    with serving() as running:
        running.files["/v.npy"] = npy(VECTORS)
        running.files["/entity2id.txt"] = vocabulary
        changes = {
            "source": running.url("/"),
            "mirrors": (),
            "sha256": {"entity2id.txt": hashlib.sha256(vocabulary).hexdigest()},
            "order_id": graph.order_id,
            "features": (
                feature_file(running.url("/v.npy")),
                feature_file(running.url("/w.npy"), publisher="else", file="w.npy"),
                feature_file(None, modality="video", file="x.npy"),
            ),
        }
        entry = datasets.published("mkg-y").model_copy(update=changes)
        monkeypatch.setitem(datasets.registry(), "mkg-y", entry)
        yield running


def feature_file(url: str | None, **more: Any) -> FeatureFile:
    fields: dict[str, Any] = {
        "modality": "image", "publisher": "someone", "file": "v.npy", "page": "https://x.org/page",
        "ids": "entity2id.txt", "parser": "rows", "licence": "none", "evidence": "made up",
        "verified": False, "encoder": "vgg",
    }  # fmt: skip
    return FeatureFile(**fields | more, url=url)


def request(file: FeatureFile, **more: Any) -> FetchRequest:
    cache = Cache(Path(), timeout=0.3, attempts=1, pause=0.0)
    return FetchRequest("mkg-y", file, cache, **more)


def fetched(path: Path) -> tuple[dict[str, list[float]], FeatureStore]:
    store = FeatureStore(path)
    ids = [name for name, is_observed in zip(store.ids, store.observed, strict=True) if is_observed]
    rows = store.read(np.flatnonzero(store.observed))
    return dict(zip(ids, rows.tolist(), strict=True)), store


@pytest.mark.parametrize("seed", [None, 3])
def test_rows_belong_to_the_entities_of_the_published_order_in_any_graph(
    graph: Graph, server: Server, tmp_path: Path, seed: int | None
) -> None:
    reordered = graph if seed is None else renumbered(graph, seed)
    done = fetch_features(
        request(choose_file("mkg-y", "image", None)), tmp_path / "i.h5", reordered
    )
    by_id, store = fetched(tmp_path / "i.h5")
    assert by_id == dict(zip(graph.entities, VECTORS.tolist(), strict=True))
    assert list(store.ids) == list(reordered.entities)
    assert (done.rows, done.observed, done.outside) == (40, 40, 0)
    assert store.metadata.encoder == "vgg"
    assert store.metadata.notes == ("v.npy of someone, https://x.org/page",)
    # The list of entities is asked for only where the graph does not have its order.
    assert ("/entity2id.txt" in [path for path, _ in server.requests]) == (seed is not None)
    store.close()


def test_a_file_with_rows_too_few_or_too_many_is_refused(
    graph: Graph, server: Server, tmp_path: Path
) -> None:
    for n in (39, 41):
        np.save(tmp_path / "own.npy", vectors(n, 8))
        local_request = request(choose_file("mkg-y", "image", None), source=tmp_path / "own.npy")
        with pytest.raises(DataError, match=rf"v.npy.ids.tsv: 40 ids, but .*own.npy has {n} rows"):
            fetch_features(local_request, tmp_path / "i.h5", graph)
    assert not (tmp_path / "i.h5").exists()


def test_keys_belong_to_the_entities_of_the_index(
    graph: Graph, server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    names = list(graph.entities)
    lines = [f"{name}\tIMG{i:05}" for i, name in enumerate(names[:30])]
    # Of an entity with two pictures the first counts; the picture of a stranger is not in the file.
    lines += [f"{names[4]}\tIMG00031", "stranger\tIMG99999"]
    content = "".join(f"{line}\n" for line in lines).encode()
    server.files["/index"] = content
    digest = hashlib.sha256(content).hexdigest()
    entry = UpstreamFile(url=server.url("/index"), sha256=digest, licence="none")
    monkeypatch.setitem(datasets.upstream(), INDEX, entry)
    with h5py.File(tmp_path / "own.h5", "w") as file:
        for i in range(32):
            file[f"IMG{i:05}"] = VECTORS[i : i + 1]
    server.files["/v.h5"] = (tmp_path / "own.h5").read_bytes()
    keyed = feature_file(server.url("/v.h5"), file="v.h5", parser="keys", ids=INDEX)
    done = fetch_features(request(keyed), tmp_path / "i.h5", graph)
    by_id, store = fetched(tmp_path / "i.h5")
    assert by_id == dict(zip(names[:30], VECTORS[:30].tolist(), strict=True))
    assert (done.without_row, done.outside) == (10, 0)
    assert store.metadata.notes[1] == "1 entity had several vectors, the first was taken"
    store.close()
    server.files["/other"] = b"a\tb\tc\n"
    digest = hashlib.sha256(server.files["/other"]).hexdigest()
    entry = UpstreamFile(url=server.url("/other"), sha256=digest, licence="none")
    monkeypatch.setitem(datasets.upstream(), INDEX, entry)
    with pytest.raises(DataError, match=r"Index.txt:1: 'a\\tb\\tc' is not 'entity<TAB>key'"):
        fetch_features(request(keyed), tmp_path / "i.h5", graph)


def test_a_graph_of_other_entities_is_refused_before_the_vectors_are_downloaded(
    graph: Graph, server: Server, tmp_path: Path
) -> None:
    strange = replace(graph, entities=[f"stranger {i}" for i in range(40)])
    with pytest.raises(DataError, match=r"none of its ids is an entity of 'random' .*'stranger 0'"):
        fetch_features(request(choose_file("mkg-y", "image", None)), tmp_path / "i.h5", strange)
    assert "/v.npy" not in [path for path, _ in server.requests]


def test_an_order_that_cannot_be_downloaded_is_one_line(
    graph: Graph, server: Server, tmp_path: Path
) -> None:
    del server.files["/entity2id.txt"]
    with pytest.raises(
        Unavailable, match=r"in the order of .*'random' does not record .*prepare mkg-y"
    ):
        fetch_features(
            request(choose_file("mkg-y", "image", None)), tmp_path / "i.h5", renumbered(graph, 1)
        )


def test_a_dead_link_is_one_line_and_leaves_no_store(
    graph: Graph, server: Server, tmp_path: Path
) -> None:
    dead = request(choose_file("mkg-y", "image", "else"))
    with pytest.raises(Unavailable, match=r"w.npy: .*404.*; or get w.npy at https://x.org/page"):
        fetch_features(dead, tmp_path / "i.h5", graph)
    with pytest.raises(Unavailable, match=r"x.npy: no address gives it without a browser"):
        fetch_features(request(choose_file("mkg-y", "video", None)), tmp_path / "i.h5", graph)
    assert not (tmp_path / "i.h5").exists()


def test_zero_rows_become_unobserved_on_request(
    graph: Graph, server: Server, tmp_path: Path
) -> None:
    holes = VECTORS.copy()
    holes[3] = holes[8] = 0
    np.save(tmp_path / "own.npy", holes)
    local_request = request(
        choose_file("mkg-y", "image", None), source=tmp_path / "own.npy", zero_is_missing=True
    )
    done = fetch_features(local_request, tmp_path / "i.h5", graph)
    assert (done.zero, done.observed) == (2, 38)
    _, store = fetched(tmp_path / "i.h5")
    assert store.metadata.notes == ("said to be v.npy of someone, https://x.org/page",)
    store.close()


def test_the_first_listed_file_of_a_modality_is_chosen_unless_a_publisher_is_given(
    server: Server,
) -> None:
    assert choose_file("mkg-y", "image", None).file == "v.npy"
    assert choose_file("mkg-y", "image", "else").file == "w.npy"
    for arguments, message in {
        ("mkg-y", "imag", None): "no published 'imag' features are known; did you mean 'image'",
        ("mkg-y", "image", "els"): "--publisher els: has no image features .*did you mean 'else'",
        ("mkg-z", "image", None): "mkg-z: is not a known graph; did you mean 'mkg-",
    }.items():
        with pytest.raises(UsageError, match=message):
            choose_file(*arguments)


def test_a_variant_has_the_features_of_its_original() -> None:
    assert known_files("db15k-clean") == known_files("db15k") != ()


def test_without_a_modality_the_first_file_with_an_address_of_each_is_fetched(
    server: Server,
) -> None:
    files, by_hand = downloadable_files("mkg-y", None)
    assert [file.file for file in files] == ["v.npy"]
    assert [file.file for file in by_hand] == ["x.npy"]
    files, by_hand = downloadable_files("mkg-y", "else")
    assert ([file.file for file in files], by_hand) == (["w.npy"], [])
    modalities = [file.modality for file in downloadable_files("db15k", None)[0]]
    assert modalities == ["image", "text"]
