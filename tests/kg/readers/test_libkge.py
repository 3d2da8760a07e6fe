from __future__ import annotations

from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.readers.libkge import read_libkge

NESTED = """
dataset:
  name: toy
  num_entities: 3
  num_relations: 2
  files:
    entity_ids: {filename: entity_ids.del, type: map}
    relation_ids.filename: relation_ids.del
    train: {filename: train.del, size: 2, type: triples}
    valid.filename: valid.del
    test: {filename: test.del}
    entity_strings: {filename: names.del, type: idmap}
    relation_strings: {filename: relations.del, type: map}
"""
DOTTED = """
dataset:
  name: toy
  num_entities: 3
  num_relations: 2
  files.entity_ids.filename: entity_ids.del
  files.entity_ids.type: map
  files.relation_ids.filename: relation_ids.del
  files.train.filename: train.del
  files.train.size: 2
  files.valid.filename: valid.del
  files.test.filename: test.del
  files.entity_strings.filename: names.del
  files.entity_strings.type: idmap
  files.relation_strings.filename: relations.del
  files.relation_strings.type: map
"""


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    files = {
        "dataset.yaml": DOTTED,
        "entity_ids.del": "0\tQ1\n2\tQ 3\n1\tQ2\n",
        "relation_ids.del": "0\tP1\n1\tP2\n",
        "train.del": "0\t1\t2\n1\t0\t0\n",
        "valid.del": "2\t0\t1\n",
        "test.del": "1\t1\t1\n",
        "names.del": "Q2\tsecond\nQ1\tfirst\n",
        "relations.del": "1\tlikes\n",
    }
    for name, content in files.items():
        (tmp_path / name).write_text(content)
    return tmp_path


@pytest.mark.parametrize("yaml", [NESTED, DOTTED])
def test_nested_and_dotted_keys_give_the_same_graph(folder: Path, yaml: str) -> None:
    (folder / "dataset.yaml").write_text(yaml)
    graph = read_libkge(folder, "toy")
    assert list(graph.entities) == ["Q1", "Q2", "Q 3"]
    assert graph.train.tolist() == [[0, 1, 2], [1, 0, 0]]
    assert (graph.valid.tolist(), graph.test.tolist()) == ([[2, 0, 1]], [[1, 1, 1]])
    assert list(graph.entity_labels or []) == ["first", "second", "Q 3"]
    assert list(graph.relation_labels or []) == ["P1", "likes"]


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("dataset.yaml", None, r"dataset.yaml: no such file"),
        ("dataset.yaml", "a: [", r"dataset.yaml:\d: not valid YAML"),
        ("dataset.yaml", "[" * 5000, r"dataset.yaml.*: (nested too deeply|not valid YAML)"),
        ("dataset.yaml", "- 1", r"dataset.yaml: has no section 'dataset'"),
        ("dataset.yaml", "dataset: {}", r"has no key files.entity_ids.filename; add"),
        ("dataset.yaml", DOTTED.replace("valid.del", "../x"), r"'../x' is outside the folder"),
        ("dataset.yaml", DOTTED.replace("valid.del", "/etc/passwd"), r"is outside the folder"),
        ("dataset.yaml", DOTTED.replace("map", "sequence_map"), r"type is 'sequence_map'"),
        ("dataset.yaml", DOTTED.replace("entities: 3", "entities: 4"), r"is 4, but there are 3"),
        ("dataset.yaml", DOTTED.replace("size: 2", "size: x"), r"train.size is x, but there are 2"),
        ("entity_ids.del", "0\ta\n0\tb\n", r"entity_ids.del:2: id 0 is already taken"),
        ("entity_ids.del", "a\t0\n", r"entity_ids.del:1: 'a\\t0' is not 'id entity'"),
        ("train.del", "0\t1\n", r"train.del:1: 2 columns, expected 3 \(head relation tail\)"),
        ("train.del", "0\t0\t1\n0\t2\t1\n", r"train.del:2: relation id 2 is outside 0..1"),
        ("test.del", "0\t0\t3\n", r"test.del:1: entity id 3 is outside 0..2"),
        ("train.del", "", r"train.del: the file is empty"),
        ("names.del", None, r"names.del: no such file"),
        ("names.del", "Q1\n", r"names.del:1: 'Q1' is not 'entity_strings label'"),
    ],
)
def test_errors_name_file_and_line(
    folder: Path, name: str, content: str | None, message: str
) -> None:
    (folder / name).unlink()
    if content is not None:
        (folder / name).write_text(content)
    with pytest.raises(DataError, match=message):
        read_libkge(folder, "toy")


def test_labels_of_other_names_and_repeated_labels_are_ignored(folder: Path) -> None:
    (folder / "names.del").write_text("Q9\tnobody\nQ1\tone\nQ1\tanother\nQ2\t\n")
    assert list(read_libkge(folder, "toy").entity_labels or []) == ["one", "Q2", "Q 3"]


def test_nested_yaml_aliases_are_not_expanded(folder: Path) -> None:
    levels = [f"  a{i}: &a{i} [*a{i - 1}, *a{i - 1}]" for i in range(1, 60)]
    bomb = "x:\n  a0: &a0 [1]\n" + "\n".join(levels)
    (folder / "dataset.yaml").write_text(bomb + "\n" + DOTTED)
    assert len(read_libkge(folder, "toy").train) == 2
