from __future__ import annotations

import math
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.extraction.contract import InputOptions, Skip
from mmkgc_cli.extraction.numeric_encoders import as_text
from mmkgc_cli.extraction.numeric_inputs import Number, find, parse_number
from tests.features.small import graph_of

GRAPH = graph_of(["/m/1", "b", "c"])


@pytest.mark.parametrize(
    ("header", "row"),
    [
        ("entity\tattribute\tvalue\n", "b\thigh\t2.50"),
        ("uri\tmid\tattribute\tvalue\n", "b\t/m/2\thigh\t2.50"),
        ("", "b\thigh\t2.50"),
    ],
)
def test_tables_of_the_benchmarks_are_read(tmp_path: Path, header: str, row: str) -> None:
    path = tmp_path / "n.tsv"
    path.write_text(f"{header}{row}\r\n{row.replace('b', '/m/1', 1)}\n{row.replace('b', '?', 1)}\n")
    input_set = find(GRAPH, InputOptions(path))
    numbers = (Number("high", 2.5, "2.50"),)
    assert {name: entry.load() for name, (entry,) in input_set.inputs.items()} == {
        "b": numbers, "/m/1": numbers
    }  # fmt: skip
    assert (input_set.outside, input_set.outside_example) == (1, "?")


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_every_finite_number_is_read_as_python_writes_it(value: float) -> None:
    assert parse_number(repr(value)) == value


@pytest.mark.parametrize("written", ["1", "+1.", "-.5", "1e3", "0.5E-3", "007"])
def test_usual_ways_to_write_a_number_are_read(written: str) -> None:
    assert parse_number(written) == float(written)


@pytest.mark.parametrize(
    ("written", "reason"),
    [
        ("1e400", "is too large for a 64-bit float"),
        ("-1e400", "is too large"),
        ("NaN", "'NaN' is not a number"),
        ("inf", "is not a number"),
        ("1,5", "is not a number: use a decimal point"),
        ("1999-12-31", "'1999-12-31' is not a number$"),
        ("1_000", "is not a number"),
        ("１", "is not a number"),
        ("0x1F", "is not a number"),
        ("", "'' is not a number"),
        ("1 2", "is not a number"),
        ("x" * 99, f"'{'x' * 40}…' is not a number"),
    ],
)
def test_invalid_numbers_are_skipped_with_a_reason(written: str, reason: str) -> None:
    with pytest.raises(Skip, match=reason):
        parse_number(written)


def test_bad_lines_are_skipped_with_entity_and_line(tmp_path: Path) -> None:
    path = tmp_path / "n.tsv"
    path.write_bytes(
        b"b\tx\t1\nb\tx\t1e400\nc\t\t2\nc\tx\n/m/1\tx\t\xff\nc\tx\t\0\nc\t" + b"y" * (1 << 21)
    )
    input_set = find(GRAPH, InputOptions(path))
    assert list(input_set.inputs) == ["b"]
    assert [(entry.entity, entry.origin, entry.reason) for entry in input_set.skipped] == [
        ("b", f"{path}:2", "'1e400' is too large for a 64-bit float"),
        ("c", f"{path}:3", "the attribute has no name"),
        ("c", f"{path}:4", "2 columns, expected 3"),
        ("/m/1", f"{path}:5", "byte 0xff at position 8 is not UTF-8"),
        ("c", f"{path}:6", "contains a NUL at byte 5, so it is not a text"),
        ("c", f"{path}:7", "2.0 MiB, expected at most 1 MiB"),
    ]


def test_a_file_without_numbers_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "n.tsv"
    path.write_text("entity\tvalue\nb\t1\n")
    with pytest.raises(DataError, match="n.tsv:1: 2 columns and no header with 'attribute'"):
        find(GRAPH, InputOptions(path))
    path.write_bytes(b"\0\n")
    with pytest.raises(DataError, match="n.tsv:1: contains a NUL"):
        find(GRAPH, InputOptions(path))
    with pytest.raises(UsageError, match="no file of numbers; add --input FILE"):
        find(GRAPH, InputOptions())


def test_numbers_become_words_as_they_were_written() -> None:
    numbers = (
        Number("<http://rdf.freebase.com/ns/people.person.height_meters>", 1.7, "1.70"),
        Number("freebase:a.b", math.pi, "3.14"),
    )
    assert as_text(numbers) == "people person height meters 1.70; freebase:a b 3.14"
