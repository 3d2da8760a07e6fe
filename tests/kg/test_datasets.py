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
    (out / "graph.h5").write_bytes(b"torn")
    assert not prepare(Request("small", openke, "openke"), out).already_there


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
