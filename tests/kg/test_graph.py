from __future__ import annotations

import dataclasses
import errno
import hashlib
import os
from pathlib import Path

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import FILE_NAME, load_graph, write_graph
from tests.conftest import random_graph


def renumbered(graph: Graph, seed: int) -> Graph:
    """The same graph with other ids and its triples in another order."""
    rng = np.random.default_rng(seed)
    e, r = rng.permutation(len(graph.entities)), rng.permutation(len(graph.relations))

    def move(rows: np.ndarray) -> np.ndarray:
        moved = np.stack([e[rows[:, 0]], r[rows[:, 1]], e[rows[:, 2]]], axis=1)
        return rng.permutation(moved).astype(np.int32)

    return Graph(
        graph.name,
        [graph.entities[i] for i in np.argsort(e)],
        [graph.relations[i] for i in np.argsort(r)],
        move(graph.train),
        move(graph.valid),
        move(graph.test),
    )


def test_a_graph_is_read_as_it_was_written(graph: Graph, tmp_path: Path) -> None:
    labelled = dataclasses.replace(graph, entity_labels=["é" * i for i in range(40)])
    write_graph(labelled, tmp_path)
    loaded = load_graph(tmp_path)
    for name, rows in graph.splits.items():
        assert np.array_equal(loaded.splits[name], rows)
    assert list(loaded.entities) == list(graph.entities)
    assert list(loaded.entity_labels or []) == list(labelled.entity_labels or [])
    assert loaded.relation_labels is None
    assert loaded.fingerprint == graph.fingerprint
    assert list(tmp_path.iterdir()) == [tmp_path / FILE_NAME]


@given(seed=st.integers(0, 1000))
def test_identities_do_not_depend_on_ids_or_order(seed: int) -> None:
    graph = random_graph(12, 3, 60, seed=1)
    other = renumbered(graph, seed)
    assert other.entities_id == graph.entities_id
    assert other.train_id == graph.train_id
    assert other.fingerprint == graph.fingerprint


def test_identities_differ_for_other_splits_vocabularies_and_orders(graph: Graph) -> None:
    other_split = dataclasses.replace(graph, train=graph.train[1:], test=graph.train[:1])
    assert other_split.entities_id == graph.entities_id
    assert other_split.train_id != graph.train_id
    assert other_split.fingerprint != graph.fingerprint
    swapped = dataclasses.replace(graph, valid=graph.test, test=graph.valid)
    assert swapped.train_id == graph.train_id
    assert swapped.fingerprint != graph.fingerprint
    renamed = dataclasses.replace(graph, entities=["x", *graph.entities[1:]])
    assert renamed.entities_id != graph.entities_id
    assert renumbered(graph, 3).order_id != graph.order_id


def test_identities_differ_for_names_with_the_same_concatenation() -> None:
    rows = np.array([[0, 0, 1]], dtype=np.int32)
    none = rows[:0]

    def named(entities: list[str], relations: list[str]) -> Graph:
        return Graph("g", entities, relations, rows, none, none)

    assert named(["ab", "c"], ["r"]).fingerprint != named(["a", "bc"], ["r"]).fingerprint
    # The identity of train ignores unused vocabulary.
    assert named(["a", "b"], ["r"]).train_id == named(["a", "c", "b"][::2], ["r", "s"]).train_id
    assert named(["a", "b"], ["r"]).train_id == named(["a", "b", "aa"], ["r", "s"]).train_id


def test_a_truncated_file_is_one_line(graph: Graph, tmp_path: Path) -> None:
    path = write_graph(graph, tmp_path)
    whole = path.read_bytes()
    for size in {0, 1, 8, 100, 600, len(whole) // 2, len(whole) - 1}:
        path.write_bytes(whole[:size])
        with pytest.raises(DataError, match=r"graph.h5: .*; prepare it again with --overwrite"):
            load_graph(tmp_path)


def test_a_flipped_bit_is_detected_before_hdf5_reads_the_file(graph: Graph, tmp_path: Path) -> None:
    path = write_graph(graph, tmp_path)
    whole = path.read_bytes()
    for offset in range(512, len(whole), 97):
        path.write_bytes(whole[:offset] + bytes([whole[offset] ^ 4]) + whole[offset + 1 :])
        with pytest.raises(DataError, match="damaged or changed since it was prepared"):
            load_graph(tmp_path)


def test_a_graph_changed_by_another_program_is_refused(graph: Graph, tmp_path: Path) -> None:
    path = write_graph(graph, tmp_path)
    with h5py.File(path, "r+") as file:  # the file stays plain HDF5
        file["test"][0] = file["train"][0]
    with pytest.raises(DataError, match="damaged or changed since it was prepared"):
        load_graph(tmp_path)


def write_checksum(path: Path) -> None:
    """Writes a valid checksum to a file, as another version of this package would."""
    rest = path.read_bytes()[512:]
    header = b"mmkgc graph\nsha256 " + hashlib.sha256(rest).hexdigest().encode() + b"\n"
    path.write_bytes(header.ljust(512, b"\0") + rest)


def test_another_format_version_or_a_foreign_file_is_refused(graph: Graph, tmp_path: Path) -> None:
    path = write_graph(graph, tmp_path)
    with h5py.File(path, "r+") as file:
        file.attrs["format_version"] = 99
    write_checksum(path)
    with pytest.raises(DataError, match="format version 99, expected 1"):
        load_graph(tmp_path)
    with h5py.File(path, "w", userblock_size=512) as file:
        file["something"] = 1
    write_checksum(path)
    with pytest.raises(DataError, match="not a prepared graph"):
        load_graph(tmp_path)
    path.write_bytes(b"no HDF5 at all")
    with pytest.raises(DataError, match="not a graph prepared by mmkgc, or truncated"):
        load_graph(tmp_path)
    path.unlink()
    with pytest.raises(DataError, match="no such file; make it with `mmkgc prepare`"):
        load_graph(tmp_path)


def test_a_folder_may_have_any_name(graph: Graph, tmp_path: Path) -> None:
    write_graph(graph, tmp_path / "strange.h5")
    assert load_graph(tmp_path / "strange.h5").fingerprint == graph.fingerprint


def test_overlaps_between_splits_are_counted(graph: Graph) -> None:
    assert not any(graph.leaks().values())
    leaky = dataclasses.replace(
        graph,
        valid=np.concatenate([graph.valid, graph.train[:3], graph.train[:3]]),
        test=np.concatenate([graph.test, graph.train[:2], graph.valid[:1]]),
    )
    assert leaky.leaks() == {"valid_in_train": 6, "valid_in_test": 5, "test_in_train": 2}


def test_a_full_disk_keeps_the_old_graph(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_graph(graph, tmp_path)

    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(DataError, match=r"graph.h5: cannot be written: the disk is full"):
        write_graph(dataclasses.replace(graph, name="new"), tmp_path)
    monkeypatch.undo()
    assert load_graph(tmp_path).name == "random"
    assert [p.name for p in tmp_path.iterdir()] == [FILE_NAME]
