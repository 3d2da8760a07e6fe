from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.extraction.contract import InputOptions, InputSet, Skip
from mmkgc_cli.extraction.lines import LONGEST
from mmkgc_cli.extraction.text_inputs import find
from tests.features.small import graph_of

GRAPH = graph_of(["/m/1", "a b", "São", "d"])


def look(
    path: Path, columns: Sequence[str] = (), names: Sequence[str] | None = None
) -> InputSet[str]:
    graph = GRAPH if names is None else graph_of(names)
    return find(graph, InputOptions(path, tuple(columns)))


def texts(input_set: InputSet[str]) -> dict[str, list[str]]:
    return {name: [entry.load() for entry in inputs] for name, inputs in input_set.inputs.items()}


def reasons(input_set: InputSet[str]) -> list[tuple[str, str, str]]:
    return [
        (entry.entity, entry.origin.rpartition("/")[2], entry.reason) for entry in input_set.skipped
    ]


def table(path: Path, *lines: bytes | str, end: bytes = b"\n") -> Path:
    path.write_bytes(end.join(x if isinstance(x, bytes) else x.encode() for x in lines) + end)
    return path


@pytest.mark.parametrize("end", [b"\n", b"\r\n"])
def test_quotes_and_commas_are_plain_characters(tmp_path: Path, end: bytes) -> None:
    path = table(
        tmp_path / "t.tsv", '/m/1\t"Weird Al", singer', 'a b\t"', "São\t日本 x", "?\ty", end=end
    )
    input_set = look(path)
    assert texts(input_set) == {"/m/1": ['"Weird Al", singer'], "a b": ['"'], "São": ["日本 x"]}
    assert (input_set.outside, input_set.outside_example, input_set.preprocess) == (1, "?", "")
    assert input_set.source == f"t.tsv sha256 {hashlib.sha256(path.read_bytes()).hexdigest()}"
    assert input_set.inputs["São"][0].origin == f"{path}:3"


@pytest.mark.parametrize(
    ("header", "row", "text"),
    [  # as the files of the benchmarks are
        ("mid\tqid\tlabel\tdescription\taliases", "/m/1\tQ7\tParis\tcity\tP|Q", "Paris: city"),
        ("uri\turi_label\twikidata_label\twikidata_description", "d\tParis\tParis\tc", "Paris: c"),
        ("entity\tlabel\tdescription\ttype_labels\tlabel_source", "d\tL\tD\tT\tS", "L: D"),
        ("entity\tdescription\tname_label\tmid", "d\tD\tN\t/m/2", "N: D"),
        ("mid\tlabel\tdescription\timage", "/m/1\t\tcity\tx.png", "city"),
        ("entity\ttext", "d\tJeremy_Irons", "Jeremy Irons"),
        ("mid\tlabel\tdescription", "/m/1\tNone\tNone", "None"),  # a commune of Piedmont
    ],
)
def test_a_header_gives_the_text_columns_and_labels_come_first(
    tmp_path: Path, header: str, row: str, text: str
) -> None:
    input_set = look(table(tmp_path / "t.tsv", header, row))
    assert list(texts(input_set).values()) == [[text]]
    assert input_set.preprocess.startswith("columns ")


def test_columns_are_chosen_by_name_or_number(tmp_path: Path) -> None:
    path = table(tmp_path / "t.tsv", "e\tlabel\tbody", "d\tL\tB")
    assert texts(look(path, ["body"])) == {"d": ["B"]}
    assert texts(look(path, ["3", "label"])) == {"d": ["B: L"]}
    bare = table(tmp_path / "b.tsv", "d\tL\tB")
    assert texts(look(bare, ["3"])) == {"d": ["B"]}
    for columns, words in ((["bodi"], "did you mean 'body'"), (["1"], "a number from 2 to 3")):
        with pytest.raises(DataError, match=words):
            look(path, columns)
    with pytest.raises(DataError, match="3 columns and no header .* --columns 2,3"):
        look(bare)
    with pytest.raises(DataError, match=r"b.tsv:1: --columns L: no such column \(there is no"):
        look(table(tmp_path / "b.tsv", "d\tB\tx"), ["L"])


def test_lines_of_one_entity_are_joined_and_equal_ones_count_once(tmp_path: Path) -> None:
    input_set = look(table(tmp_path / "t.tsv", "d\tone", "a b\tx", "d\ttwo words", "d\tone"))
    assert texts(input_set) == {"d": ["one: two words"], "a b": ["x"]}


def test_bad_lines_are_skipped_alone_with_entity_and_line(tmp_path: Path) -> None:
    path = table(
        tmp_path / "t.tsv", "entity\ttext", b"/m/1\tn\0l", b"a b\t\xff", "São\t  ", "d\tx\ty",
        b"d\t" + b"x" * 10_000_000, "d\tgood", b"?\t\0",
    )  # fmt: skip
    input_set = look(path)
    assert texts(input_set) == {"d": ["good"]}
    assert reasons(input_set) == [
        ("/m/1", "t.tsv:2", "contains a NUL at byte 7, so it is not a text"),
        ("a b", "t.tsv:3", "byte 0xff at position 5 is not UTF-8"),
        ("São", "t.tsv:4", "the text is empty"),
        ("d", "t.tsv:5", "3 columns, expected 2"),
        ("d", "t.tsv:6", "9.5 MiB, expected at most 1 MiB"),
    ]
    assert input_set.source.endswith(hashlib.sha256(path.read_bytes()).hexdigest())


@pytest.mark.parametrize("excess", [-1, 0, 1, 2, 3])
def test_a_text_at_the_limit_is_read_and_a_longer_one_is_not(tmp_path: Path, excess: int) -> None:
    long = "x" * (LONGEST - 2 + excess)
    input_set = look(table(tmp_path / "t.tsv", f"d\t{long}", "a b\tbehind"))
    assert texts(input_set)["a b"] == ["behind"]
    assert ("d" in input_set.inputs) == (excess <= 0)
    if excess <= 0:
        assert texts(input_set)["d"] == [long]


def test_many_lines_that_are_too_long_together_are_skipped_when_read(tmp_path: Path) -> None:
    input_set = look(table(tmp_path / "t.tsv", *[f"d\t{i}{'x' * 700_000}" for i in range(2)]))
    with pytest.raises(Skip, match="1.3 MiB"):
        input_set.inputs["d"][0].load()


def test_json_lines_have_an_entity_and_texts(tmp_path: Path) -> None:
    path = table(
        tmp_path / "t.jsonl", '{"id": "d", "description": ["b", "c"], "label": "a", "n": 1}',
        '{"id": "a b", "label": null, "description": "x\\ty"}', '{"id": "/m/1", "label": 3}',
        "{", "[]", '{"label": "a"}', '{"id": "São", "label": "\\ud800"}', '{"id": "d"}',
        '{"id": "São", "label": "n\\u0000"}', "[" * 100_000,
    )  # fmt: skip
    input_set = look(path)
    assert texts(input_set) == {"d": ["a: b: c"], "a b": ["x y"]}
    assert input_set.preprocess == "keys label, description"
    assert [(entity, origin) for entity, origin, _ in reasons(input_set)] == [
        ("/m/1", "t.jsonl:3"), ("", "t.jsonl:4"), ("", "t.jsonl:5"), ("", "t.jsonl:6"),
        ("", "t.jsonl:7"), ("d", "t.jsonl:8"), ("São", "t.jsonl:9"), ("", "t.jsonl:10"),
    ]  # fmt: skip
    assert texts(look(path, ["label"])) == {"d": ["a"]}
    for line in ('{"label": "a"}', "{", '{"id": "d", "x": "y"}'):
        with pytest.raises(DataError, match="t.jsonl:1: "):
            look(table(path, line))


def test_a_folder_has_a_file_an_entity_with_ids_as_in_urls(tmp_path: Path) -> None:
    for name, content in {
        "%2Fm%2F1": b"first\nline", "a b": b"x", "S%C3%A3o": b"", "d": b"\0", "other": b"y"
    }.items():  # fmt: skip
        (tmp_path / f"{name}.txt").write_bytes(content)
    (tmp_path / "README.md").write_text("not a text of an entity")
    input_set = look(tmp_path)
    assert texts(input_set) == {"/m/1": ["first line"], "a b": ["x"]}
    assert {(entity, reason) for entity, _, reason in reasons(input_set)} == {
        ("São", "the text is empty"), ("d", "contains a NUL at byte 1, so it is not a text")
    }  # fmt: skip
    assert (input_set.outside, input_set.outside_example) == (1, "other")
    before = input_set.source
    (tmp_path / "a b.txt").write_bytes(b"z")
    assert look(tmp_path).source != before
    (tmp_path / "a b.txt").write_bytes(b"y" * (LONGEST + 1))
    assert "1.0 MiB, expected at most 1 MiB" in {reason for *_, reason in reasons(look(tmp_path))}
    with pytest.raises(UsageError, match="--columns"):
        look(tmp_path, ["x"])


def test_an_unusable_source_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="no such file"):
        look(tmp_path / "nowhere.tsv")
    with pytest.raises(DataError, match="all lines are blank; check that it was copied"):
        look(table(tmp_path / "b.tsv", " ", "\t"))
    with pytest.raises(DataError, match="the file is empty"):
        (tmp_path / "e.tsv").write_bytes(b"")
        look(tmp_path / "e.tsv")
    with pytest.raises(DataError, match="t.tsv:1: one column, expected an entity and a text"):
        look(table(tmp_path / "t.tsv", "only"))
    with pytest.raises(DataError, match="t.tsv:1: byte 0xff at position 1 is not UTF-8"):
        look(table(tmp_path / "t.tsv", b"\xff\tx"))
    with pytest.raises(UsageError, match="no source of texts; add --input"):
        find(GRAPH, InputOptions())
    assert texts(look(table(tmp_path / "bom.tsv", b"\xef\xbb\xbfd\tx"))) == {"d": ["x"]}


def test_a_file_that_became_shorter_is_an_error(tmp_path: Path) -> None:
    path = table(tmp_path / "t.tsv", "a b\tx", "d\tmore words")
    input_set = look(path)
    path.write_bytes(path.read_bytes()[:-4])
    with pytest.raises(DataError, match="became shorter while it was read"):
        input_set.inputs["d"][0].load()


line_text = st.text(st.characters(exclude_characters="\t\r\n\0", exclude_categories=["Cs"]))


@given(st.lists(st.tuples(st.sampled_from(["d", "a b", "?"]), line_text), min_size=1))
def test_every_line_is_a_text_or_has_a_reason(
    tmp_path_factory: pytest.TempPathFactory, rows: list[tuple[str, str]]
) -> None:
    path = tmp_path_factory.mktemp("any") / "t.tsv"
    path.write_bytes("".join(f"{name}\t{text}\n" for name, text in rows).encode())
    input_set = look(path)
    for name in ("d", "a b"):
        entity_texts = [" ".join(text.split()) for entity, text in rows if entity == name]
        good = [text for text in entity_texts if text]
        skipped = [entry for entry in input_set.skipped if entry.entity == name]
        assert len(skipped) == len(entity_texts) - len(good)
        assert (name in input_set.inputs) == bool(good)
        if name in input_set.inputs:
            plain = [t if " " in t else t.replace("_", " ").strip() for t in good]
            assert texts(input_set)[name] == [": ".join(dict.fromkeys(plain))]
    assert input_set.outside == any(name == "?" for name, _ in rows)
