from __future__ import annotations

from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.preparation import Request, prepare, read

FOLDERS = {
    "fb15k-237": "FB15K-237",
    "db15k": "DB15K",
    "mkg-w": "MKG-W",
    "mkg-y": "MKG-Y",
    "kvc16k": "KVC16K",
    "tiva": "TIVA",
}


def test_every_benchmark_has_counts_checksums_a_pinned_source_licence_and_citation() -> None:
    assert set(datasets.registry()) == set(FOLDERS)
    for name, dataset in datasets.registry().items():
        assert len(dataset.sha256) == 5, name
        assert all(len(digest) == 64 for digest in dataset.sha256.values()), name
        assert any(len(part) == 40 for part in dataset.source.split("/")), f"{name}: no commit"
        assert len(dataset.citation) > 20, name


@pytest.mark.parametrize("name", FOLDERS)
def test_every_benchmark_prepares_with_its_registered_counts(
    name: str, real_data: Path, tmp_path: Path
) -> None:
    prepared = prepare(Request(name, real_data / FOLDERS[name]), tmp_path)
    assert prepared.graph.counts == datasets.registry()[name].counts
    assert prepared.graph.provenance.verified
    assert prepare(Request(name, real_data / FOLDERS[name]), tmp_path).already_there


def test_a_changed_file_is_refused_unless_told_otherwise(real_data: Path, tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    for path in (real_data / "MKG-Y").glob("*2id.txt"):
        (source / path.name).write_bytes(path.read_bytes())
    test = source / "test2id.txt"
    test.write_bytes(test.read_bytes().replace(b"\n", b"\r\n"))
    with pytest.raises(DataError, match=r"test2id.txt: SHA-256 .*--allow-unverified"):
        read(Request("mkg-y", source))
    graph = read(Request("mkg-y", source, allow_unverified=True))
    assert graph.counts == datasets.registry()["mkg-y"].counts
    assert not graph.provenance.verified
    test.unlink()
    with pytest.raises(DataError, match=r"test2id.txt: no such file; MKG-Y is published at https"):
        read(Request("mkg-y", source))


def test_an_unknown_name_gets_the_nearest_one() -> None:
    with pytest.raises(UsageError, match="did you mean 'fb15k-237'"):
        read(Request("fb15k237"))


def test_a_benchmark_without_its_files_says_where_they_are() -> None:
    with pytest.raises(UsageError, match=r"published at https.*--source FOLDER"):
        read(Request("db15k"))


def test_a_folder_keeps_its_graph_unless_told_otherwise(openke: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    prepare(Request("small", openke, "openke"), out)
    other = Request("small", openke, "openke", split=(0.7, 0.15, 0.15))
    with pytest.raises(UsageError, match="holds another graph .*--overwrite"):
        prepare(other, out)
    (out / "graph.h5").write_bytes(b"precious")
    with pytest.raises(UsageError, match="a file that is not a readable graph; .*--overwrite"):
        prepare(Request("small", openke, "openke"), out)
    assert (out / "graph.h5").read_bytes() == b"precious"
    assert not prepare(Request("small", openke, "openke"), out, overwrite=True).already_there


def test_a_moved_source_gives_the_same_graph(openke: Path, tmp_path: Path) -> None:
    prepare(Request("small", openke, "openke"), tmp_path / "out")
    moved = openke.rename(tmp_path / "moved")
    assert prepare(Request("small", moved, "openke"), tmp_path / "out").already_there


@pytest.mark.parametrize("name", ["../up", "a/b", "", ".hidden", "[/x]", "a\nb"])
def test_names_that_are_no_folder_names_are_refused(name: str, openke: Path) -> None:
    with pytest.raises(UsageError, match="cannot name a graph"):
        read(Request(name, openke, "openke"))


def test_what_is_missing_of_elements_is_put_back(tmp_path: Path) -> None:
    prepare(Request("elements"), tmp_path)
    (tmp_path / "modalities" / "image" / "iron.png").unlink()
    assert prepare(Request("elements"), tmp_path).already_there
    assert (tmp_path / "modalities" / "image" / "iron.png").is_file()


def test_the_contaminated_benchmarks_are_found_out(real_data: Path) -> None:
    clean = {"valid_in_train": 0, "valid_in_test": 0, "test_in_train": 0}
    for name in ("mkg-w", "mkg-y", "fb15k-237"):
        assert read(Request(name, real_data / FOLDERS[name])).leaks() == clean
    db15k = read(Request("db15k", real_data / FOLDERS["db15k"])).leaks()
    assert (db15k["valid_in_train"], db15k["test_in_train"]) == (8719, 0)
    tiva = read(Request("tiva", real_data / FOLDERS["tiva"])).leaks()
    assert (tiva["valid_in_train"], tiva["test_in_train"]) == (1676, 1666)
    kvc16k = read(Request("kvc16k", real_data / FOLDERS["kvc16k"])).leaks()
    assert (kvc16k["valid_in_train"], kvc16k["test_in_train"]) == (30, 48)


def test_elements_has_three_modalities_some_of_them_missing(tmp_path: Path) -> None:
    prepared = prepare(Request("elements"), tmp_path)
    graph, folder = prepared.graph, tmp_path / "modalities"
    assert graph.unseen() == {"valid": 0, "test": 0}
    for name in ("text", "numeric", "image"):
        lines = (folder / f"{name}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        having = {line.split("\t")[0] for line in lines}
        assert having < set(graph.entities), name
    for line in (folder / "image.tsv").read_text().splitlines()[1:]:
        assert (folder / line.split("\t")[1]).read_bytes().startswith(b"\x89PNG")
