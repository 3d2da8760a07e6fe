from __future__ import annotations

from pathlib import Path

import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.readers.named_triples import read_named
from mmkgc_cli.kg.readers.splits import require_splits

ROWS = [
    ("Paris", "capital of", "France"),
    ("France", "borders", "Spain"),
    ("Spain", "borders", "France"),
    ("Lyon", "in", "France"),
    ("Paris", "near", "Lyon"),
]


def write(path: Path, rows: list[tuple[str, str, str]], order: str = "hrt") -> Path:
    columns = {"hrt": (0, 1, 2), "htr": (0, 2, 1)}[order]
    path.parent.mkdir(parents=True, exist_ok=True)
    text = "".join("\t".join(row[i] for i in columns) + "\n" for row in rows)
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize("order", ["hrt", "htr"])
def test_both_orders_give_the_same_graph(tmp_path: Path, order: str) -> None:
    graph = read_named(write(tmp_path / "triples.tsv", ROWS, order), "g", order)
    assert [graph.decode(row) for row in graph.train] == ROWS


@pytest.mark.parametrize(("written", "read"), [("htr", "hrt"), ("hrt", "htr")])
def test_the_error_for_a_wrong_order_names_the_right_one(
    tmp_path: Path, written: str, read: str
) -> None:
    rows = [(f"e{i}", f"r{i % 3}", f"e{(i * 7) % 20}") for i in range(60)]
    path = write(tmp_path / "train.tsv", rows, written)
    with pytest.raises(DataError, match=rf"train.tsv:1: .* is this --format {written}\?"):
        read_named(path, "g", read)
    read_named(path, "g", written)


def test_a_bipartite_graph_is_accepted(tmp_path: Path) -> None:
    rows = [(f"user {i}", f"rating {i % 5}", f"film {i % 3}") for i in range(30)]
    assert len(read_named(write(tmp_path / "t.tsv", rows), "g", "hrt").relations) == 5


def test_a_swapped_bipartite_graph_is_refused_without_trust_order(tmp_path: Path) -> None:
    rows = [(f"user {i % 30}", "likes", f"film {i}") for i in range(60)]
    path = write(tmp_path / "t.tsv", rows, "htr")
    with pytest.raises(DataError, match=r"60 relations but 1 tails, .*; is this --format htr\?"):
        read_named(path, "g", "hrt")
    assert len(read_named(path, "g", "hrt", trust_order=True).relations) == 60


def test_a_folder_gives_its_three_splits(tmp_path: Path) -> None:
    for split, rows in (("train", ROWS[:3]), ("valid", ROWS[3:4]), ("test", ROWS[4:])):
        write(tmp_path / f"{split}.txt", rows)
    graph = read_named(tmp_path, "g", "hrt")
    assert [len(rows) for rows in graph.splits.values()] == [3, 1, 1]
    require_splits(graph, tmp_path)


def test_a_single_list_of_triples_requires_a_split(tmp_path: Path) -> None:
    path = write(tmp_path / "triples.tsv", ROWS)
    with pytest.raises(UsageError, match="--split"):
        require_splits(read_named(path, "g", "hrt"), path)


def test_a_vocabulary_file_fixes_the_ids_and_the_names(tmp_path: Path) -> None:
    write(tmp_path / "train.tsv", ROWS[:2])
    (tmp_path / "entity2id.txt").write_text("Spain\t0\nParis\t1\nFrance\t2\nLyon\t3\n")
    graph = read_named(tmp_path, "g", "hrt")
    assert list(graph.entities) == ["Spain", "Paris", "France", "Lyon"]
    write(tmp_path / "train.tsv", [*ROWS[:2], ("Rome", "near", "Paris")])
    with pytest.raises(DataError, match=r"train.tsv:3: entity 'Rome' is not in .*entity2id.txt"):
        read_named(tmp_path, "g", "hrt")
    assert "Rome" in read_named(tmp_path / "train.tsv", "g", "hrt").entities


@pytest.mark.parametrize("name", ["a\rb", "a\x1b[31mb", "a\x00b", "a\x7fb"])
def test_control_characters_in_names_are_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_bytes(f"x\ty\tz\nx\ty\t{name}\n".encode())
    with pytest.raises(DataError, match=r"t.tsv:2: holds the control character 0x.. at position 6"):
        read_named(path, "g", "hrt")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("a\tb", r"t.tsv:2: 2 columns, expected 3 separated by tabs \(head relation tail\)"),
        ("a\tb\tc\td", r"t.tsv:2: 4 columns, expected 3"),
        ("a b c", r"t.tsv:2: 1 column, expected 3 .*; separate the columns with tabs"),
        ("a\t\tc", r"t.tsv:2: an empty name, expected head relation tail"),
    ],
)
def test_errors_name_file_and_line(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "t.tsv"
    path.write_text(f"x\ty\tz\n{line}\n")
    with pytest.raises(DataError, match=message):
        read_named(path, "g", "hrt")


@pytest.mark.parametrize(
    ("header", "order"),
    [
        ("head\trelation\ttail", "hrt"),
        ("Subject\tPredicate\tObject", "hrt"),
        ("h\tt\tr", "htr"),
        ("from\trel\tto", "hrt"),
        ("subject\trelation\tobject", "hrt"),
    ],
)
def test_a_header_is_refused_without_trust_order(tmp_path: Path, header: str, order: str) -> None:
    path = write(tmp_path / "t.tsv", ROWS, order)
    path.write_text(header + "\n" + path.read_text())
    with pytest.raises(DataError, match=r"t.tsv:1: .* is a header, expected a triple; remove"):
        read_named(path, "g", order)
    assert len(read_named(path, "g", order, trust_order=True).train) == len(ROWS) + 1


def test_one_very_long_name_or_run_of_blanks_does_not_slow_down_other_rows(tmp_path: Path) -> None:
    # Takes minutes if each word of the longest name requires a pass over all rows.
    path = tmp_path / "t.tsv"
    long = "x" * 2_000_000
    rows = [f"e{i}\tr\te{i + 1}" for i in range(100_000)]
    path.write_text("\n".join([*rows, f"{long}\tr\t{' ' * 2_000_000}e1{' ' * 99_999}"]))
    graph = read_named(path, "g", "hrt")
    assert graph.decode(graph.train[-1]) == (long, "r", "e1")


def test_header_words_after_the_first_row_are_names(tmp_path: Path) -> None:
    path = write(tmp_path / "t.tsv", [*ROWS, ("head", "relation", "tail")])
    assert len(read_named(path, "g", "hrt").train) == len(ROWS) + 1


def test_a_count_line_must_match_the_number_of_rows(tmp_path: Path) -> None:
    path = tmp_path / "t.tsv"
    path.write_text("2\nx\ty\tz\nz\ty\tx\n")
    assert len(read_named(path, "g", "hrt").train) == 2
    path.write_text("3\nx\ty\tz\nz\ty\tx\n")
    with pytest.raises(DataError, match=r"t.tsv:1: the count line says 3, but 2 triples follow"):
        read_named(path, "g", "hrt")


@pytest.mark.parametrize(
    ("files", "message"),
    [
        ([], "no train.txt or train.tsv"),
        (["train.txt", "test.txt"], "no valid.txt or valid.tsv beside the other two"),
        (["train.txt", "train.tsv"], "contains both train.txt and train.tsv"),
    ],
)
def test_missing_or_duplicate_split_files_are_refused(
    tmp_path: Path, files: list[str], message: str
) -> None:
    for name in files:
        write(tmp_path / name, ROWS)
    with pytest.raises(DataError, match=message):
        read_named(tmp_path, "g", "hrt")
