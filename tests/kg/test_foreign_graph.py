"""Graphs from elsewhere: well-formed checksums around contents that are not those of a graph."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg import inspected, storage
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph, write_graph
from tests.kg.test_graph import renumbered, write_checksum
from tests.state.sessions import record_sessions

Edit = Callable[[h5py.File], object]


def replaced(name: str, **options: Any) -> Edit:
    """Replaces an array by another one."""

    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_dataset(name, **options)

    return edit


def linked(name: str, target: Any) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        file[name] = target

    return edit


def grouped(name: str) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        file.create_group(name)

    return edit


def attribute(name: str, value: Any) -> Edit:
    return lambda file: file.attrs.__setitem__(name, value)


def without(name: str) -> Edit:
    return lambda file: file.__delitem__(name)


def without_attribute(name: str) -> Edit:
    return lambda file: file.attrs.__delitem__(name)


def first_name(name: str, value: Any) -> Edit:
    return lambda file: file[name].__setitem__(0, value)


def repeated(name: str) -> Edit:
    return lambda file: file[name].__setitem__(0, file[name][1])


def virtual(name: str) -> Edit:
    def edit(file: h5py.File) -> None:
        del file[name]
        layout = h5py.VirtualLayout((3, 3), "i4")
        layout[:] = h5py.VirtualSource("other.h5", "train", (3, 3))
        file.create_virtual_dataset(name, layout)

    return edit


ZEROS = np.zeros((4, 3), dtype=np.int32)
TEXT = h5py.string_dtype()
ARRAYS = ("train", "valid", "test", "entities", "relations")
TEXTS = (
    "name", "source", "licence", "citation", "entities_id", "train_id", "fingerprint", "order_id",
)  # fmt: skip
MUTATIONS: dict[str, tuple[Edit, str]] = {
    **{f"{name} is missing": (without(name), "contains no (array|vocab)") for name in ARRAYS},
    **{f"{name} is a group": (grouped(name), "contains no (array|vocab)") for name in ARRAYS},
    **{
        f"{name} is a soft link": (linked(name, h5py.SoftLink("/test")), "is a soft link")
        for name in ("train", "entities", "entity_labels")
    },
    **{
        f"{name} is a link to a pipe": (
            linked(name, h5py.ExternalLink("pipe", "/x")), "is a link to another file"
        )
        for name in ("train", "relations", "entity_labels")
    },
    "a further link": (lambda f: f.__setitem__("x", h5py.SoftLink("/x")), "'x' is a soft link"),
    "virtual triples": (virtual("train"), "virtual dataset"),
    "external triples": (
        replaced("train", shape=(3, 3), dtype="i4", external=[("/etc/passwd", 0, 36)]),
        "values in other files",
    ),
    **{
        f"triples of type {dtype}": (replaced("valid", data=ZEROS.astype(dtype)), "expected int32")
        for dtype in ("i8", "u4", "f4", ">i4", "i2", "S3")
    },
    "triples of objects": (
        replaced("valid", data=np.full((2, 3), "a", dtype=object), dtype=TEXT), "expected int32"
    ),
    "triples of records": (
        replaced("valid", data=np.zeros((2, 3), dtype=[("a", "i4")])), "expected int32"
    ),
    **{
        f"triples of shape {shape}": (
            replaced("valid", data=np.zeros(shape, dtype=np.int32)), "expected int32"
        )
        for shape in ((), (3,), (3, 2), (3, 4), (1, 3, 1))
    },
    "empty triples": (replaced("valid", data=h5py.Empty("i4")), "expected int32|graph.h5: "),
    "negative id": (lambda f: f["train"].__setitem__((0, 0), -1), "id out of range"),
    "large id": (lambda f: f["train"].__setitem__((0, 2), 2**31 - 1), "id out of range"),
    "relation out of range": (lambda f: f["test"].__setitem__((0, 1), 99), "id out of range"),
    "zeros without end": (
        replaced("valid", shape=(2**40, 3), dtype="i4", chunks=(2**20, 3)), "valid declares"
    ),
    "names without end": (
        replaced("entities", shape=(2**40,), dtype=TEXT, chunks=(2**10,)), "entities declares"
    ),
    "numbers as names": (replaced("entities", data=np.arange(40)), "string datatype"),
    "a name alone": (replaced("entities", data="a", dtype=TEXT), "has shape"),
    "names in a table": (
        replaced("entities", data=np.full((40, 1), "a", dtype=object), dtype=TEXT), "has shape"
    ),
    "no names": (replaced("entities", shape=(0,), dtype=TEXT), "id out of range"),
    "few names": (replaced("entities", data=["a", "b"], dtype=TEXT), "id out of range"),
    "names of numbers": (replaced("relations", data=np.zeros(5)), "string datatype"),
    "a repeated entity": (repeated("entities"), "entities contains a name twice"),
    "a repeated relation": (repeated("relations"), "relations contains a name twice"),
    "an empty name": (first_name("entities", ""), "empty name or a control character"),
    "a control character": (first_name("entities", "a\x1b[2J"), "control character"),
    "a name that is not UTF-8": (first_name("entities", b"\xff\xfe"), "utf-8"),
    "short labels": (
        replaced("entity_labels", data=["a"], dtype=TEXT), "entity_labels has 1 rows, expected 40"
    ),
    "long labels": (
        replaced("relation_labels", data=["a"] * 9, dtype=TEXT), "has 9 rows, expected 5"
    ),
    "labels of numbers": (replaced("entity_labels", data=np.arange(40)), "string datatype"),
    "labels that are not UTF-8": (first_name("entity_labels", b"\xff"), "utf-8"),
    **{f"no {name}": (without_attribute(name), name) for name in (*TEXTS, "format_version")},
    "no truth value": (without_attribute("verified"), "verified"),
    **{
        f"{name} is a number": (attribute(name, 7), "expected a string")
        for name in (*TEXTS, "notes")
    },
    "a name of numbers": (attribute("name", np.arange(3)), "expected a string"),
    "a name that is no UTF-8": (attribute("name", b"\xff"), "UTF-8|expected a string"),
    "verified is a text": (attribute("verified", "yes"), "expected a truth value"),
    "notes are no JSON": (attribute("notes", "["), "Expecting value"),
    "notes are a number": (attribute("notes", "7"), "not a list of strings"),
    "notes are numbers": (attribute("notes", "[7]"), "not a list of strings"),
    "deep notes": (attribute("notes", "[" * 20_000), "nested too deeply"),
    "a long number": (attribute("notes", "9" * 5000), "digits"),
    **{
        f"format version {value!r}": (attribute("format_version", value), "format.version")
        for value in (0, 2, -1, 2**62, "1", 1.0, float("inf"), float("nan"), np.arange(2))
    },
    "an empty version": (attribute("format_version", h5py.Empty("i8")), "format_version"),
    **{
        f"a false {name}": (attribute(name, "0" * 64), f"the {name} in the file is not that of")
        for name in ("entities_id", "train_id", "fingerprint", "order_id")
    },
    "another order of the names": (
        lambda f: f["entities"].__setitem__(slice(0, 2), f["entities"][:2][::-1]),
        "in the file is not that of its contents",
    ),
    "another triple": (
        lambda f: f["test"].__setitem__(0, (f["test"][0] + 1) % 5), "is not that of its contents"
    ),
}  # fmt: skip


@pytest.fixture
def path(graph: Graph, tmp_path: Path) -> Path:
    labelled = Graph(
        graph.name, graph.entities, graph.relations, graph.train, graph.valid, graph.test,
        entity_labels=[f"label {name}" for name in graph.entities],
        relation_labels=[f"label {name}" for name in graph.relations],
    )  # fmt: skip
    assert (len(graph.entities), len(graph.relations)) == (40, 5)
    os.mkfifo(tmp_path / "pipe")  # to open it would wait for ever
    return write_graph(labelled, tmp_path)


def edited(path: Path, edit: Edit) -> None:
    with h5py.File(path, "r+") as file:
        edit(file)
    write_checksum(path)


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_graph_that_is_not_one_is_a_single_line(path: Path, mutation: str) -> None:
    edit, words = MUTATIONS[mutation]
    edited(path, edit)
    with pytest.raises(DataError, match=rf"graph.h5: (?s:.*)({words})(?s:.*); prepare") as caught:
        load_graph(path.parent)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


def test_the_same_contents_in_another_file_are_accepted(path: Path) -> None:
    def copy(file: h5py.File) -> None:
        triples, names = file["train"][:], list(file["entities"].asstr()[:])
        replaced("train", data=triples)(file)  # without compression
        replaced("entities", data=names, dtype=TEXT)(file)

    before = load_graph(path)
    edited(path, copy)
    assert load_graph(path).fingerprint == before.fingerprint


def test_identities_of_another_graph_are_not_believed(path: Path, graph: Graph) -> None:
    """The identities decide whether a run fits a graph; a copied one would make any graph fit."""
    identities = {name: graph.__getattribute__(name) for name in storage._IDENTITIES}
    other = write_graph(renumbered(graph, 3), path.parent / "other")
    edited(other, lambda file: file.attrs.update(identities))
    with pytest.raises(DataError, match="the order_id in the file is not that of its contents"):
        load_graph(other)


def test_an_inspection_is_recorded_by_contents(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    edited(path, attribute("citation", "another"))
    sessions = record_sessions(monkeypatch)
    load_graph(path)
    load_graph(path)
    inspected._known.clear()  # as a new process
    load_graph(path)
    copy = tmp_path / "copy.h5"
    copy.write_bytes(path.read_bytes())
    assert load_graph(copy).provenance.citation == "another"
    assert len(sessions) == 1
    edited(path, attribute("citation", "a third"))
    load_graph(path)
    assert len(sessions) == 2


def test_a_graph_of_this_machine_is_not_inspected(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_graph(graph, tmp_path)
    inspected._known.clear()
    monkeypatch.setattr("mmkgc_cli.kg.storage.Session", None)
    assert load_graph(tmp_path).fingerprint == graph.fingerprint


def test_without_a_cache_folder_graphs_are_inspected_each_time(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setenv("MMKGC_HOME", str(tmp_path / "file"))
    inspected._known.clear()
    assert load_graph(path).name == "random"


def test_the_record_stays_short(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(inspected, "_MOST_LINES", 10)
    keys = [inspected.contents_key("graph", str(i)) for i in range(40)]
    for key in keys:
        inspected.record(key)
    inspected._known.clear()
    assert inspected.is_inspected(keys[-1])
    assert not inspected.is_inspected(keys[0])
    assert inspected._path().stat().st_size <= 10 * 65


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_graph_that_is_no_file_is_refused_without_waiting(tmp_path: Path, kind: str) -> None:
    target = Path("/dev/zero")
    if kind == "pipe":
        os.mkfifo(target := tmp_path / "pipe")
    (tmp_path / "graph.h5").symlink_to(target)
    with pytest.raises(DataError, match=f"graph.h5: is a {kind}, expected a file"):
        load_graph(tmp_path)
