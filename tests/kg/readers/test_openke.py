from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.readers.id_rows import line_of_row, read_id_rows
from mmkgc_cli.kg.readers.openke import read_openke


def test_head_tail_relation_columns_are_read_as_head_relation_tail(openke: Path) -> None:
    graph = read_openke(openke, "small")
    assert graph.train.tolist() == [[0, 0, 1], [2, 1, 3], [3, 1, 0], [1, 1, 2]]
    assert graph.decode(graph.train[0]) == ("Paris", "capital of", "France")
    assert graph.train.dtype == np.int32


def rewrite(path: Path, change: Callable[[bytes], bytes]) -> None:
    path.write_bytes(change(path.read_bytes()))


@pytest.mark.parametrize(
    "change",
    [
        pytest.param(lambda b: b.replace(b"\n", b"\r\n"), id="CRLF"),
        pytest.param(lambda b: b"\xef\xbb\xbf" + b, id="BOM"),
        pytest.param(lambda b: b.split(b"\n", 1)[1], id="no count line"),
        pytest.param(lambda b: b.rstrip(b"\n"), id="no newline at the end"),
        pytest.param(lambda b: b + b"\n\n  \n", id="blank lines at the end"),
        pytest.param(lambda b: b.replace(b" ", b"\t"), id="tabs"),
    ],
)
def test_line_ends_bom_count_lines_and_blanks_do_not_matter(
    openke: Path, change: Callable[[bytes], bytes]
) -> None:
    before = read_openke(openke, "small")
    for path in openke.glob("t*2id.txt"):
        rewrite(path, change)
    if b"\t" not in change(b"\n "):  # tabs inside names are refused
        for path in (openke / "entity2id.txt", openke / "relation2id.txt"):
            rewrite(path, change)
    after = read_openke(openke, "small")
    assert after.fingerprint == before.fingerprint
    assert after.order_id == before.order_id


def test_names_may_contain_spaces_commas_and_any_script(openke: Path) -> None:
    assert read_openke(openke, "small").entities[2:] == ["São Paulo, Brazil", "東京"]


def test_without_a_tab_a_blank_separates_the_id(openke: Path) -> None:
    rewrite(openke / "entity2id.txt", lambda b: b.replace(b"\t", b" "))
    assert read_openke(openke, "small").entities[2] == "São Paulo, Brazil"


@pytest.mark.parametrize(
    ("file", "old", "new", "message"),
    [
        ("train2id.txt", "4\n", "5\n", r"train2id.txt:1: the count line says 5, but 4 triples"),
        ("train2id.txt", "2 3 1", "2 9 1", r"train2id.txt:3: entity id 9 is outside 0..3"),
        ("train2id.txt", "2 3 1", "2 3 7", r"train2id.txt:3: relation id 7 is outside 0..1"),
        ("train2id.txt", "2 3 1", "2 3", r"train2id.txt:3: 2 columns, expected 3 \(head tail rel"),
        ("train2id.txt", "2 3 1", "2 3 1 0", r"train2id.txt:3: 4 columns, expected 3"),
        ("train2id.txt", "2 3 1", "2 x 1", r"train2id.txt:3: 'x' is not an id"),
        ("train2id.txt", "2 3 1", "2 -3 1", r"train2id.txt:3: '-3' is not an id"),
        ("train2id.txt", "2 3 1", "2 3\v1 0", r"train2id.txt:3: holds the control character 0x0b"),
        ("train2id.txt", "4\n", "4" * 5000 + "\n", r"train2id.txt:1: 1 columns, expected 3"),
        ("train2id.txt", "2 3 1", "2 99999999999 1", r"train2id.txt:3: '99999999999' is not an id"),
        ("entity2id.txt", "4\n", "7\n", r"entity2id.txt:1: the count line says 7, but 4 entity"),
        ("entity2id.txt", "\t1", "\t0", r"entity2id.txt:3: id 0 is already taken \(line 2\)"),
        ("entity2id.txt", "\t3", "\t4", r"entity2id.txt:5: entity id 4 is outside 0..3"),
        ("entity2id.txt", "France", "Paris", r"entity2id.txt:3: entity 'Paris' already has id 0"),
        ("entity2id.txt", "France\t1", "France", r"entity2id.txt:3: 'France' is not 'entity id'"),
    ],
)
def test_errors_name_file_and_line(
    openke: Path, file: str, old: str, new: str, message: str
) -> None:
    path = openke / file
    text = path.read_text(encoding="utf-8")
    assert old in text
    path.write_text(text.replace(old, new, 1), encoding="utf-8")
    with pytest.raises(DataError, match=message):
        read_openke(openke, "small")


def test_rows_in_head_relation_tail_order_are_recognised(openke: Path) -> None:
    (openke / "train2id.txt").write_text("0 0 1\n2 1 3\n3 1 0\n1 1 2\n")
    with pytest.raises(DataError, match="look like 'head relation tail'"):
        read_openke(openke, "small")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (None, "no such file"),
        (b"", "the file is empty"),
        (b"\xef\xbb\xbf", "the file is empty"),
        (b"\xff\xfe1\x00", "encoded as UTF-16, expected UTF-8"),
        (b"1\nParis\xe9\t0\n", r"entity2id.txt:2: byte 0xe9 at position 6 is not UTF-8"),
        (b"1\nPa\0ris\t0\n", r"entity2id.txt:2: holds the control character 0x00 at position 3"),
        (b"0\n", "contains no entity"),
    ],
)
def test_an_unreadable_vocabulary_is_one_line(
    openke: Path, content: bytes | None, message: str
) -> None:
    path = openke / "entity2id.txt"
    path.unlink()
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message):
        read_openke(openke, "small")


def test_empty_valid_is_allowed_but_empty_train_is_not(openke: Path) -> None:
    (openke / "valid2id.txt").write_text("0\n")
    assert len(read_openke(openke, "small").valid) == 0
    (openke / "train2id.txt").write_text("0\n")
    with pytest.raises(DataError, match="contains no triples"):
        read_openke(openke, "small")


@given(
    rows=st.lists(st.tuples(*[st.integers(0, 10**10 - 1)] * 3), max_size=40),
    chunk=st.integers(1, 64),
    ends=st.sampled_from(["\n", "\r\n"]),
    count=st.booleans(),
)
def test_id_rows_do_not_depend_on_the_block_size(
    tmp_path_factory: pytest.TempPathFactory,
    rows: list[tuple[int, int, int]],
    chunk: int,
    ends: str,
    count: bool,
) -> None:
    path = tmp_path_factory.mktemp("rows") / "rows.txt"
    lines = [*([str(len(rows))] if count else []), *(" ".join(map(str, row)) for row in rows)]
    path.write_bytes((ends.join(lines) + ends).encode())
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("mmkgc_cli.kg.readers.lines.BLOCK", chunk)
        read = read_id_rows(path, "head tail relation", "triples")
    assert read.tolist() == [list(row) for row in rows]
    for i in range(len(rows)):
        assert line_of_row(path, i) == i + 1 + count
