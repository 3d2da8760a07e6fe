from __future__ import annotations

from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.labels import with_labels


def write(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "labels.tsv"
    path.write_text(text, encoding="utf-8")
    return path


def test_entities_and_relations_without_a_label_keep_their_name(
    graph: Graph, tmp_path: Path
) -> None:
    path = write(tmp_path, "entity 3\tDrei, très joli\nrelation 1\tliebt\nnobody\tx\n")
    labelled = with_labels(graph, path)
    assert labelled.entity_labels is not None
    assert labelled.entity_labels[3] == "Drei, très joli"
    assert labelled.entity_labels[4] == "entity 4"
    assert labelled.decode([3, 1, 4]) == ("Drei, très joli", "liebt", "entity 4")
    assert labelled.fingerprint == graph.fingerprint
    assert labelled.provenance.notes == ("labels for 1 of 40 entities and 1 of 5 relations",)


def test_a_column_of_a_table_with_a_header_can_be_selected(graph: Graph, tmp_path: Path) -> None:
    path = write(tmp_path, "id\tqid\tname\nentity 0\tQ1\tnull\nentity 1\tQ2\t\nentity 2\tQ3\n")
    labelled = with_labels(graph, path, "name")
    assert list(labelled.entity_labels or [])[:3] == ["null", "entity 1", "entity 2"]
    assert labelled.relation_labels is None
    with pytest.raises(
        DataError, match=r"labels.tsv:1: no column 'title' after the first; .*'qid', 'name'"
    ):
        with_labels(graph, path, "title")


def test_a_second_label_for_a_name_is_ignored_and_counted(graph: Graph, tmp_path: Path) -> None:
    labelled = with_labels(graph, write(tmp_path, "entity 0\tfirst\nentity 0\tsecond\n"))
    assert (labelled.entity_labels or [])[0] == "first"
    assert "1 further label for the same names ignored" in labelled.provenance.notes[0]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("entity 0\n", r"labels.tsv:1: 1 column, expected name and label \('entity 0'\)"),
        ("entity 0\tQ1\tzero\n", r"labels.tsv:1: 3 columns, .*; add a header .* --label-column"),
        ("x\ty\n", r"labels.tsv: none of its 1 name is in the graph \(the first is 'x'"),
        ("", r"labels.tsv: the file is empty"),
    ],
)
def test_an_invalid_table_is_one_line(
    graph: Graph, tmp_path: Path, text: str, message: str
) -> None:
    with pytest.raises(DataError, match=message):
        with_labels(graph, write(tmp_path, text))
