from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.preparation import PrepareRequest, read
from mmkgc_cli.kg.storage import write_graph
from mmkgc_cli.runs.audit import FILE_NAME, audit, stored_audit
from tests.kg.test_datasets import FOLDERS


def problem_counts(report: dict[str, Any]) -> dict[str, int]:
    """The numbers of duplicate and overlapping rows, without zeros."""
    counts = {f"{split} duplicates": count for split, count in report["duplicates"].items()}
    counts |= {name: overlap["rows"] for name, overlap in report["overlaps"].items()}
    return {name: count for name, count in counts.items() if count}


# Duplicate and overlapping rows of each published benchmark; counts that are not listed are zero.
PROBLEMS = {
    "db15k": {"valid duplicates": 2423, "valid_in_train": 8719, "valid_in_test": 1105},
    "kvc16k": {
        "train duplicates": 171, "valid duplicates": 3, "test duplicates": 2,
        "valid_in_train": 30, "valid_in_test": 5, "test_in_train": 48,
    },
    "tiva": {
        "train duplicates": 8419, "valid duplicates": 87, "test duplicates": 94,
        "valid_in_train": 1676, "valid_in_test": 154, "test_in_train": 1666,
    },
    "mkg-w": {}, "mkg-y": {}, "fb15k-237": {},
    "db15k-clean": {}, "kvc16k-clean": {}, "tiva-resplit": {},
}  # fmt: skip


@pytest.mark.parametrize("name", PROBLEMS)
def test_the_audit_finds_exactly_the_problems_of_each_benchmark(name: str, real_data: Path) -> None:
    report = audit(read(PrepareRequest(name, real_data / FOLDERS[name])))
    assert problem_counts(report) == PROBLEMS[name]
    assert report["clean"] == (not PROBLEMS[name])
    assert len(report["problems"]) == len(PROBLEMS[name])
    json.dumps(report, allow_nan=False)


def test_db15k_keeps_73_valid_triples_and_tiva_6_test_triples_with_seen_entities(
    real_data: Path,
) -> None:
    db15k = audit(read(PrepareRequest("db15k", real_data / FOLDERS["db15k"])))
    assert db15k["counts"]["valid"] - db15k["duplicates"]["valid"] == 7481
    assert db15k["overlaps"]["valid_in_test"]["triples"] == 824
    assert db15k["after_cleaning"]["valid"]["rows"] == 73
    tiva = audit(read(PrepareRequest("tiva", real_data / FOLDERS["tiva"])))
    assert tiva["after_cleaning"]["test"] == {"rows": 242, "seen": 6}


def test_the_score_of_copying_train_distinguishes_a_leak_from_a_clean_split(
    real_data: Path,
) -> None:
    tiva = audit(read(PrepareRequest("tiva", real_data / FOLDERS["tiva"])))["copy"]
    assert round(100 * tiva["train"]["mrr"], 1) == 83.3
    mkg_y = audit(read(PrepareRequest("mkg-y", real_data / FOLDERS["mkg-y"])))
    assert mkg_y["copy"]["train"]["mrr"] < 0.0002
    # playsFor and isAffiliatedTo have the same pairs, which answer a fifth of test.
    assert mkg_y["relation_pairs"][0]["kind"] == "equivalent"
    assert round(100 * mkg_y["copy"]["train_and_counterparts"]["mrr"], 1) == 22.7


def test_every_number_of_the_audit_of_a_small_graph() -> None:
    rows = {
        "train": [(0, 0, 1), (1, 0, 0), (0, 0, 1), (0, 1, 2), (1, 1, 2)],
        "valid": [(0, 0, 1), (2, 0, 0), (2, 0, 0)],
        "test": [(2, 0, 0), (3, 2, 0), (1, 1, 2)],
    }
    graph = Graph(
        "g", ["a", "b", "c", "d", "e"], ["r", "s", "t"],
        *(np.array(split, dtype=np.int32) for split in rows.values()),
    )  # fmt: skip
    report = audit(graph)
    assert report["duplicates"] == {"train": 1, "valid": 1, "test": 0}
    assert report["overlaps"] == {
        "valid_in_train": {"rows": 1, "triples": 1},
        "valid_in_test": {"rows": 2, "triples": 1},
        "test_in_train": {"rows": 1, "triples": 1},
    }
    assert report["problems"] == [
        "1 train row repeats an earlier one",
        "1 valid row repeats an earlier one",
        "1 valid row is also in train",
        "2 valid rows are also in test",
        "1 test row is also in train",
    ]
    assert report["after_cleaning"] == {
        "train": {"rows": 4, "seen": 4},
        "valid": {"rows": 0, "seen": 0},
        "test": {"rows": 2, "seen": 1},
    }
    assert report["unseen"]["test"] == {"triples": 1, "entities": 1, "relations": 1}
    assert report["unseen"]["valid"] == {"triples": 0, "entities": 0, "relations": 0}
    assert report["isolated"] == 1
    assert [entry["category"] for entry in report["relations"]] == ["1-1", "N-1", "unseen"]
    assert report["relations"][1] == {
        "relation": "s", "category": "N-1", "train": 2, "valid": 0, "test": 1, "heads": 2,
        "tails": 1,
    }  # fmt: skip
    assert report["categories"]["unseen"] == {"relations": 1, "train": 0, "valid": 0, "test": 1}
    assert report["reversed"] == {"valid": 3, "test": 1}
    degrees = report["degrees"]
    assert (degrees["min"], degrees["median"], degrees["max"], degrees["mean"]) == (0, 2, 4, 2)
    assert degrees["histogram"] == [
        {"from": 0, "to": 0, "entities": 2},
        {"from": 1, "to": 1, "entities": 0},
        {"from": 2, "to": 3, "entities": 1},
        {"from": 4, "to": 7, "entities": 2},
    ]
    assert degrees["most_connected"][0] == {"entity": "a", "degree": 4}


def test_a_stored_audit_is_used_as_long_as_it_matches_the_graph(
    graph: Graph, tmp_path: Path
) -> None:
    write_graph(graph, tmp_path)
    first = stored_audit(tmp_path)
    path = tmp_path / FILE_NAME
    marked = {**first, "isolated": -1}
    path.write_text(json.dumps(marked))
    assert stored_audit(tmp_path) == marked
    assert stored_audit(tmp_path / "graph.h5") == marked
    path.write_text(json.dumps({key: first[key] for key in ("version", "graph", "fingerprint")}))
    assert stored_audit(tmp_path) == first
    path.write_text("{ damaged")
    assert stored_audit(tmp_path) == first
    write_graph(dataclasses.replace(graph, valid=graph.train[:5]), tmp_path)
    assert not stored_audit(tmp_path)["clean"]
    assert not json.loads(path.read_text())["clean"]


def test_an_audit_that_cannot_be_stored_is_still_shown(
    graph: Graph, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_graph(graph, tmp_path)

    def refuse(path: Path, value: object) -> None:
        raise DataError(f"{path}: cannot be written: the file system is read-only", fix="move it")

    monkeypatch.setattr("mmkgc_cli.runs.audit.write_json", refuse)
    warnings: list[str] = []
    assert stored_audit(tmp_path, warn=warnings.append)["clean"]
    assert "the audit is not stored" in warnings[0]
    with pytest.raises(DataError, match="read-only"):
        stored_audit(tmp_path)


def test_a_graph_without_valid_and_test_can_be_audited(graph: Graph) -> None:
    report = audit(dataclasses.replace(graph, valid=graph.valid[:0], test=graph.test[:0]))
    assert report["clean"]
    assert report["copy"] is None
