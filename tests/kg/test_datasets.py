from __future__ import annotations

import dataclasses
import gzip
import hashlib
import re
import shutil
from pathlib import Path
from typing import Any

import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.downloads import Cache
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.preparation import PrepareRequest, prepare, read
from mmkgc_cli.kg.storage import write_graph
from tests.conftest import write_openke
from tests.kg.server import serving
from tests.kg.test_graph import renumbered

FOLDERS = {
    "fb15k-237": "FB15K-237",
    "db15k": "DB15K",
    "mkg-w": "MKG-W",
    "mkg-y": "MKG-Y",
    "kvc16k": "KVC16K",
    "tiva": "TIVA",
    "db15k-clean": "DB15K",
    "kvc16k-clean": "KVC16K",
    "tiva-resplit": "TIVA",
}


def test_every_benchmark_has_counts_checksums_a_pinned_source_licence_and_citation() -> None:
    assert set(datasets.registry()) == set(FOLDERS)
    for name in datasets.registry():
        dataset = datasets.published(name)
        assert len(dataset.sha256) == 5, name
        assert all(len(digest) == 64 for digest in dataset.sha256.values()), name
        for base in (dataset.source, *dataset.mirrors):
            assert re.search(r"\b[0-9a-f]{40}\b", base), f"{name}: no commit in {base}"
            assert base.startswith("https://"), name
            assert base.endswith("/"), name
        assert len(dataset.citation) > 20, name
        assert re.fullmatch(r"@\w+\{\w+,\n(  \w+ = \{.+\},\n)+\}\n", dataset.bibtex), name


def test_a_variant_is_derived_from_a_published_graph_and_suggested_for_it() -> None:
    for name, entry in datasets.registry().items():
        if isinstance(entry, datasets.Variant):
            assert isinstance(datasets.registry()[entry.of], datasets.Dataset)
            assert datasets.registered_variant(entry.of) == name
            assert datasets.cache_folder(name) == datasets.cache_folder(entry.of)
    assert datasets.registered_variant("mkg-w") is None


@pytest.mark.parametrize("name", FOLDERS)
def test_every_benchmark_prepares_with_its_registered_counts(
    name: str, real_data: Path, tmp_path: Path
) -> None:
    prepared = prepare(PrepareRequest(name, real_data / FOLDERS[name]), tmp_path)
    assert prepared.graph.counts == datasets.registry()[name].counts
    assert prepared.graph.fingerprint == datasets.registry()[name].fingerprint
    assert prepared.graph.order_id == datasets.published(name).order_id
    assert prepared.graph.provenance.verified
    assert prepare(PrepareRequest(name, real_data / FOLDERS[name]), tmp_path).already_there


def test_a_changed_file_is_refused_without_allow_unverified(
    real_data: Path, tmp_path: Path
) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in (real_data / "MKG-Y").glob("*2id.txt"):
        (source / path.name).write_bytes(path.read_bytes())
    test = source / "test2id.txt"
    test.write_bytes(test.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(DataError, match=r"test2id.txt: SHA-256 .*--allow-unverified"):
        read(PrepareRequest("mkg-y", source))
    graph = read(PrepareRequest("mkg-y", source, allow_unverified=True))
    assert graph.counts == datasets.registry()["mkg-y"].counts
    assert not graph.provenance.verified
    test.unlink()
    with pytest.raises(DataError, match=r"test2id.txt: no such file; get it from https"):
        read(PrepareRequest("mkg-y", source))


def test_the_error_for_an_unknown_name_suggests_the_nearest() -> None:
    with pytest.raises(UsageError, match="did you mean 'fb15k-237'"):
        read(PrepareRequest("fb15k237"))


def test_a_variant_can_use_the_features_of_its_original(real_data: Path) -> None:
    original = read(PrepareRequest("db15k", real_data / "DB15K"))
    clean = read(PrepareRequest("db15k-clean", real_data / "DB15K"))
    assert clean.entities_id == original.entities_id
    assert clean.train_id != original.train_id
    assert clean.fingerprint != original.fingerprint


def as_ids(graph: Graph, folder: Path, seed: int) -> Path:
    """The graph as an OpenKE folder with random ids."""
    moved = renumbered(graph, seed)
    splits = {
        split: [(h, r, t) for h, r, t in rows.tolist()] for split, rows in moved.splits.items()
    }
    return write_openke(folder, moved.entities, moved.relations, splits)


def test_db15k_as_n_triples_equals_db15k_by_id(real_data: Path, tmp_path: Path) -> None:
    pytest.importorskip("pyoxigraph")
    graph = read(PrepareRequest("db15k", real_data / "DB15K"))
    for split, rows in graph.splits.items():
        lines = (" ".join(graph.decode(row)) + " .\n" for row in rows)
        (tmp_path / f"{split}.nt").write_text("".join(lines), encoding="utf-8")
    other = read(PrepareRequest("mine", tmp_path, "nt", unseen="keep"))
    assert other.fingerprint == graph.fingerprint
    assert other.entities_id == graph.entities_id


@pytest.mark.parametrize("packed", [False, True])
def test_a_split_of_fb_flags_is_the_same_by_name_and_by_id(
    real_data: Path, tmp_path: Path, packed: bool
) -> None:
    source = real_data / "FB-Flags"
    by_name = read(PrepareRequest("flags", source, "hrt", split=(0.8, 0.1, 0.1), seed=3))
    assert by_name.counts["entities"] == 257
    assert by_name.counts["relations"] == 13
    assert by_name.unseen() == {"valid": 0, "test": 0}
    ids = as_ids(
        read(PrepareRequest("flags", source, "hrt", unseen="keep")), tmp_path / "ids", seed=1
    )
    if packed:
        ids = Path(shutil.make_archive(str(tmp_path / "ids"), "gztar", tmp_path, "ids"))
    by_id = read(PrepareRequest("flags", ids, "openke", split=(0.8, 0.1, 0.1), seed=3))
    assert by_id.fingerprint == by_name.fingerprint
    assert by_id.train_id == by_name.train_id
    other = read(PrepareRequest("flags", ids, "openke", split=(0.8, 0.1, 0.1), seed=4))
    assert other.fingerprint != by_name.fingerprint
    assert other.entities_id == by_name.entities_id


def test_a_benchmark_is_downloaded_from_a_mirror_and_then_read_from_the_cache(
    real_data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    entry = datasets.published("mkg-y")
    with serving() as server:
        for name in entry.sha256:
            server.files[f"/mirror/{name}"] = (real_data / "MKG-Y" / name).read_bytes()
        bases = {"source": server.url("/gone/"), "mirrors": (server.url("/mirror/"),)}
        monkeypatch.setitem(datasets.registry(), "mkg-y", entry.model_copy(update=bases))
        graph = read(PrepareRequest("mkg-y"))
        assert graph.fingerprint == entry.fingerprint
        assert len(server.requests) == 10
        cache = Cache(Path(), offline=True)
        assert read(PrepareRequest("mkg-y", cache=cache)).fingerprint == entry.fingerprint
        assert len(server.requests) == 10
        monkeypatch.setenv("MMKGC_HOME", str(tmp_path / "elsewhere"))
        at_source = read(PrepareRequest("mkg-y", server.url("/mirror")))
        assert at_source.fingerprint == entry.fingerprint
        changed = server.files["/mirror/test2id.txt"] + b"\n"
        server.files["/mirror/test2id.txt"] = changed
        unverified = read(PrepareRequest("mkg-y", server.url("/mirror"), allow_unverified=True))
        assert unverified.fingerprint == entry.fingerprint
        assert not unverified.provenance.verified
        archive = shutil.make_archive(str(tmp_path / "mkgy"), "zip", real_data / "MKG-Y")
        server.files["/mkgy.zip?download=1"] = Path(archive).read_bytes()
        packed = read(PrepareRequest("mkg-y", server.url("/mkgy.zip?download=1")))
        assert packed.fingerprint == entry.fingerprint
        monkeypatch.setenv("MMKGC_HOME", str(tmp_path / "third"))
        with pytest.raises(DataError, match=r"test2id.txt: .* SHA-256 is not 8602cbbe7e3a"):
            read(PrepareRequest("mkg-y", server.url("/mirror/")))


def test_a_source_may_be_a_url_with_or_without_a_checksum(tmp_path: Path) -> None:
    rows = "".join(f"e{i}\tr\te{(3 * i + 1) % 20}\n" for i in range(20)).encode() * 2
    content = gzip.compress(rows, mtime=0)
    digest = hashlib.sha256(content).hexdigest()
    request = PrepareRequest("mine", format="hrt", split=(0.8, 0.1, 0.1))
    with serving() as server:
        server.files["/x/triples.tsv.gz"] = content
        url = server.url("/x/triples.tsv.gz")
        graph = read(dataclasses.replace(request, source=url))
        assert graph.provenance.source == url
        assert not graph.provenance.verified
        assert digest in graph.provenance.notes[0]
        verified = dataclasses.replace(request, source=url, sha256=digest)
        assert read(verified).provenance.verified
        with pytest.raises(DataError, match="SHA-256 is not 000000000000"):
            read(dataclasses.replace(verified, sha256="0" * 64))
    with pytest.raises(UsageError, match="expected 64 hexadecimal digits"):
        read(dataclasses.replace(verified, sha256="12"))
    path = tmp_path / "triples.tsv.gz"
    path.write_bytes(content)
    assert read(dataclasses.replace(verified, source=path)).fingerprint == graph.fingerprint
    with pytest.raises(DataError, match=r"triples.tsv.gz: SHA-256 .*, expected 0000"):
        read(dataclasses.replace(verified, source=path, sha256="0" * 64))
    with pytest.raises(UsageError, match=r"--sha256: .* is not a file"):
        read(dataclasses.replace(verified, source=tmp_path))


@pytest.mark.parametrize(
    "changes",
    [
        {"format": "hrt"},
        {"split": (0.8, 0.1, 0.1)},
        {"unseen": "drop"},
        {"sha256": "0" * 64},
        {"seed": 7},
        {"clean": True},
    ],
)
def test_options_that_change_a_benchmark_are_refused(changes: dict[str, Any]) -> None:
    with pytest.raises(UsageError, match="give the graph another name"):
        read(dataclasses.replace(PrepareRequest("db15k-clean"), **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"name": "elements", "source": None, "format": None, "sha256": "0" * 64}, "--sha256"),
        ({"name": "elements", "source": None, "format": None, "unseen": "keep"}, "--unseen"),
        ({"allow_unverified": True}, "--allow-unverified: only registered graphs"),
        ({"trust_order": True}, "--trust-order: only the formats hrt and htr"),
        ({"seed": 5}, "--seed: has no effect without --split or --clean; omit --seed"),
        ({"split": (0.8, 0.1, 0.1), "unseen": "drop"}, "--unseen: has no effect with --split"),
        ({"split": (0.8, 0.1, 0.1), "clean": True}, "--clean: has no effect with --split"),
        ({"label_column": "x"}, "--label-column: requires --labels; pass --labels"),
    ],
)
def test_an_option_without_effect_is_refused(
    openke: Path, changes: dict[str, Any], message: str
) -> None:
    with pytest.raises(UsageError, match=message):
        read(dataclasses.replace(PrepareRequest("mine", openke, "openke"), **changes))


def test_user_files_can_be_cleaned(tmp_path: Path) -> None:
    rows = [f"e{i % 40}\tr\te{(7 * i + 3) % 40}" for i in range(40)]
    splits = {"train": [*rows, rows[0]], "valid": rows[:3], "test": rows[1:2]}
    for split, lines in splits.items():
        (tmp_path / f"{split}.tsv").write_text("\n".join(lines) + "\n")
    request = PrepareRequest("mine", tmp_path, "hrt")
    assert any(read(request).leaks().values())
    cleaned = read(dataclasses.replace(request, clean=True, seed=2))
    assert not any(cleaned.leaks().values())
    assert not any(cleaned.duplicates().values())
    assert len(cleaned.provenance.notes) == 4


def test_unseen_names_are_an_error_without_the_option_unseen(tmp_path: Path) -> None:
    for split, row in {"train": "a\tr\tb", "valid": "a\tr\tb", "test": "a\tr\tc"}.items():
        (tmp_path / f"{split}.tsv").write_text(row + "\n")
    request = PrepareRequest("mine", tmp_path, "hrt")
    with pytest.raises(DataError, match=r"0 valid and 1 test triples .*--unseen drop .*keep"):
        read(request)
    assert len(read(dataclasses.replace(request, unseen="keep")).test) == 1
    dropped = read(dataclasses.replace(request, unseen="drop"))
    assert (len(dropped.test), list(dropped.entities)) == (0, ["a", "b"])


def test_a_folder_keeps_its_graph_without_overwrite(openke: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(PrepareRequest("small", openke, "openke"), out)
    other = PrepareRequest("small", openke, "openke", split=(0.7, 0.15, 0.15))
    with pytest.raises(UsageError, match="contains another graph .*--overwrite"):
        prepare(other, out)
    (out / "graph.h5").write_bytes(b"precious")
    with pytest.raises(UsageError, match="a file that is not a readable graph; .*--overwrite"):
        prepare(PrepareRequest("small", openke, "openke"), out)
    assert (out / "graph.h5").read_bytes() == b"precious"
    assert not prepare(PrepareRequest("small", openke, "openke"), out, overwrite=True).already_there


def test_a_moved_source_and_other_notes_give_the_same_graph(openke: Path, tmp_path: Path) -> None:
    prepare(PrepareRequest("small", openke, "openke"), tmp_path / "out")
    moved = openke.rename(tmp_path / "moved")
    assert prepare(PrepareRequest("small", moved, "openke"), tmp_path / "out").already_there
    write_graph(read(PrepareRequest("small", moved, "openke")).with_notes("x"), tmp_path / "out")
    assert prepare(PrepareRequest("small", moved, "openke"), tmp_path / "out").already_there


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "[/x]", "a\nb"])
def test_names_that_are_not_folder_names_are_refused(name: str, openke: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a graph"):
        read(PrepareRequest(name, openke, "openke"))


def test_missing_files_of_elements_are_restored(tmp_path: Path) -> None:
    prepare(PrepareRequest("elements"), tmp_path)
    (tmp_path / "modalities" / "image" / "iron.png").unlink()
    assert prepare(PrepareRequest("elements"), tmp_path).already_there
    assert (tmp_path / "modalities" / "image" / "iron.png").is_file()


def test_elements_has_three_modalities_that_some_entities_lack(tmp_path: Path) -> None:
    prepared = prepare(PrepareRequest("elements"), tmp_path)
    graph, folder = prepared.graph, tmp_path / "modalities"
    assert graph.unseen() == {"valid": 0, "test": 0}
    for name in ("text", "numeric", "image"):
        lines = (folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        described = {line.split("\t")[0] for line in lines}
        assert described < set(graph.entities), name
    for line in (folder / "image.tsv").read_text().splitlines()[1:]:
        assert (folder / line.split("\t")[1]).read_bytes().startswith(b"\x89PNG")
