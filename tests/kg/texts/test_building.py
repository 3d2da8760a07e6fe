from __future__ import annotations

import dataclasses
import hashlib
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.downloads import Cache, Unavailable
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.modality_files import UpstreamFile
from mmkgc_cli.kg.texts import tables
from mmkgc_cli.kg.texts.building import BuildRequest, build_tables
from mmkgc_cli.kg.texts.tables import BUILDERS
from tests.kg.server import Server, serving
from tests.kg.texts.upstream import item, write

NAMES = [f"<http://dbpedia.org/resource/E{i}>" for i in range(4)]
FILES = [tables.ITEMS, tables.FREEBASE_NUMBERS, tables.DBPEDIA_LINKS]


def small(names: list[str]) -> Graph:
    rows = np.array([[0, 0, 1], [1, 0, 2], [2, 0, 3]], dtype=np.int32)
    return Graph("small", names, ["r"], rows, rows[:1], rows[1:2])


@pytest.fixture
def server(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    """Serves small upstream files, registered in place of the published ones."""
    files = write(
        tmp_path / "at home",
        items={"/m/1": item("Q1", "one", "first")},
        dbpedia=[("/m/1", "E1"), ("/m/2", "E2")],
        numbers=[("/m/2", "a.b", "5")],
    )
    with serving() as running:
        for name in FILES:
            running.files[f"/{name}"] = content = files[name].read_bytes()
            digest = hashlib.sha256(content).hexdigest()
            entry = UpstreamFile(url=running.url(f"/{name}"), sha256=digest, licence="none")
            monkeypatch.setitem(datasets.upstream(), name, entry)
        yield running


def request(source: Path | None = None, offline: bool = False, **more: bool) -> BuildRequest:
    cache = Cache(Path(), offline=offline, timeout=0.3, attempts=1, pause=0.0)
    return BuildRequest("db15k", source, cache, **more)


def test_every_registered_table_has_a_builder_and_every_builder_a_registered_table() -> None:
    registered = {name: set(datasets.published(name).tables) for name in datasets.registry()}
    published = {
        name: tables
        for name, tables in registered.items()
        if tables and datasets.published_name(name) == name
    }
    assert published == {name: set(builders) for name, builders in BUILDERS.items()}


def test_files_missing_in_the_source_folder_are_downloaded_once(
    server: Server, tmp_path: Path
) -> None:
    source = tmp_path / "mine"
    source.mkdir()
    (source / tables.ITEMS).write_bytes(server.files[f"/{tables.ITEMS}"])
    built = build_tables(request(source), small(NAMES), tmp_path / "out")
    assert sorted(path for path, _ in server.requests) == [
        f"/{tables.DBPEDIA_LINKS}", f"/{tables.FREEBASE_NUMBERS}",
    ]  # fmt: skip
    text, numbers = (table.path.read_text().splitlines()[1:] for table in built)
    assert text[1] == f"{NAMES[1]}\t/m/1\tQ1\tE1\tone\tfirst"
    assert (len(text), numbers) == (4, [f"{NAMES[2]}\t/m/2\ta.b\t5"])
    assert [(table.entities, table.found) for table in built] == [(4, 2), (1, 1)]
    assert built[0].made_of[tables.ITEMS] == str(source / tables.ITEMS)
    again = build_tables(request(source, offline=True), small(NAMES), tmp_path / "out")
    assert [table.already_there for table in again] == [True, True]
    assert len(server.requests) == 2


def test_a_registered_table_is_recognised_by_its_checksum(
    server: Server, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    graph, entry = small(NAMES), datasets.published("db15k")
    built = build_tables(request(), graph, tmp_path / "a")
    assert not any(table.as_registered for table in built)
    as_built = {
        table.path.name: entry.tables[table.path.name].model_copy(update={"sha256": table.sha256})
        for table in built
    }
    changes = {"tables": as_built, "order_id": graph.order_id}
    monkeypatch.setitem(datasets.registry(), "db15k", entry.model_copy(update=changes))
    assert all(table.as_registered for table in build_tables(request(), graph, tmp_path / "a"))
    moved = build_tables(request(), small(NAMES[::-1]), tmp_path / "b")
    assert not moved[0].as_registered
    wrong = as_built | {"numeric.tsv": entry.tables["numeric.tsv"]}
    changes = {"tables": wrong, "order_id": graph.order_id}
    monkeypatch.setitem(datasets.registry(), "db15k", entry.model_copy(update=changes))
    with pytest.raises(DataError, match=r"numeric.tsv: SHA-256 .*, expected .*; report this"):
        build_tables(request(), graph, tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_a_changed_file_is_refused_without_allow_unverified(server: Server, tmp_path: Path) -> None:
    source = tmp_path / "at home"
    changed = source / tables.FREEBASE_NUMBERS
    changed.write_text(changed.read_text().replace("\t5\n", "\t6\n"))
    with pytest.raises(DataError, match=rf"{changed.name}: SHA-256 .*--allow-unverified"):
        build_tables(request(source), small(NAMES), tmp_path / "out")
    assert not (tmp_path / "out").exists()
    built = build_tables(request(source, allow_unverified=True), small(NAMES), tmp_path / "out")
    assert built[1].path.read_text().endswith("\t6\n")


def test_a_table_with_other_contents_is_kept_without_overwrite(
    server: Server, tmp_path: Path
) -> None:
    (tmp_path / "numeric.tsv").write_text("precious")
    with pytest.raises(DataError, match=r"numeric.tsv: exists with other contents; .* --overwrite"):
        build_tables(request(), small(NAMES), tmp_path)
    assert not (tmp_path / "entity_text.tsv").exists()
    built = build_tables(request(), small(NAMES), tmp_path, overwrite=True)
    assert built[1].path.read_text().startswith("uri\t")


def test_a_graph_with_other_entities_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none of its 4 entities is named as in DB15K .*'<http://"):
        others = [name.replace("/E", "/F") for name in NAMES]
        build_tables(request(), small(others), tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_an_unavailable_file_is_one_line_with_a_fix(server: Server, tmp_path: Path) -> None:
    server.plan[f"/{tables.ITEMS}"] = [404]
    with pytest.raises(
        Unavailable, match=r"404 Not Found; .*; or put the file at .*upstream/fb15k"
    ) as caught:
        build_tables(request(), small(NAMES), tmp_path)
    assert "\n" not in str(caught.value)
    with pytest.raises(Unavailable, match=r"no such file, and downloads are off"):
        build_tables(request(offline=True), small(NAMES), tmp_path)
    with pytest.raises(DataError, match=r"nowhere: no such folder"):
        build_tables(request(tmp_path / "nowhere"), small(NAMES), tmp_path)


def test_a_graph_without_registered_tables_is_refused(tmp_path: Path) -> None:
    for name, reason in {"tiva": "has no registered texts", "db15": "did you mean 'db15k'"}.items():
        invalid = dataclasses.replace(request(), name=name)
        with pytest.raises(UsageError, match=reason):
            build_tables(invalid, small(NAMES), tmp_path)


def test_a_variant_has_the_tables_of_its_original(server: Server, tmp_path: Path) -> None:
    graph = small(NAMES)
    original = build_tables(request(), graph, tmp_path / "a")
    variant = dataclasses.replace(request(), name="db15k-clean")
    copies = build_tables(variant, graph, tmp_path / "b")
    assert [table.sha256 for table in copies] == [table.sha256 for table in original]
