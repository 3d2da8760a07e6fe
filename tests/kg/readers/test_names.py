from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.kg.readers import names as names_module
from mmkgc_cli.kg.readers.fields import blank_fields, tab_fields
from mmkgc_cli.kg.readers.names import UNKNOWN, HashCollision, NameTable

# Short names repeat, long names cover several words, and some differ in their last byte only.
NAMES = st.one_of(
    st.text("ab", min_size=1, max_size=3),
    st.text("aé東", min_size=6, max_size=30),
    st.sampled_from(["x" * n for n in (7, 8, 9, 15, 16, 17)]),
    st.sampled_from(["x" * n + "y" for n in (6, 7, 8, 14, 15, 16)]),
)


@given(batches=st.lists(st.lists(NAMES, max_size=20), max_size=5), salt=st.integers(0, 5))
def test_ids_equal_those_of_a_growing_dictionary(batches: list[list[str]], salt: int) -> None:
    table, expected = NameTable(salt), dict[str, int]()
    for batch in batches:
        batch_ids = [expected.setdefault(name, len(expected)) for name in batch]
        assert table.ids_of(batch).tolist() == batch_ids
    assert table.names() == list(expected)
    assert len(table) == len(expected)


@given(known=st.lists(NAMES, unique=True, max_size=20), queries=st.lists(NAMES, min_size=1))
def test_a_fixed_table_marks_unknown_names(known: list[str], queries: list[str]) -> None:
    table = NameTable.from_names(known)
    data = np.frombuffer("".join(queries).encode(), dtype=np.uint8)
    ends = np.cumsum([len(name.encode()) for name in queries])
    starts = np.concatenate([[0], ends[:-1]])
    expected = [known.index(name) if name in known else UNKNOWN for name in queries]
    assert table.ids(data, starts, ends, grow=False).tolist() == expected
    assert table.names() == known


@pytest.mark.parametrize("names", [["a", "b"], ["a" * 9, "b" * 9], ["same length", "as this one"]])
def test_a_hash_collision_is_an_error(
    names: Sequence[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def constant(words: object, starts: np.ndarray, lengths: object, salt: int) -> np.ndarray:
        return np.zeros(len(starts), dtype=np.uint64)

    monkeypatch.setattr(names_module, "_hash", constant)
    with pytest.raises(HashCollision):
        NameTable().ids_of(names)  # within one batch
    table = NameTable()
    table.ids_of(names[:1])
    assert table.ids_of(names[:1]).tolist() == [0]
    with pytest.raises(HashCollision):
        table.ids_of(names[1:])  # with a known name


def text(fields: object, row: int) -> list[str]:
    starts, ends = fields.starts[row], fields.ends[row]  # type: ignore[attr-defined]
    data = fields.data  # type: ignore[attr-defined]
    return [data[a:b].tobytes().decode() for a, b in zip(starts, ends, strict=True)]


LINES = st.lists(
    st.one_of(
        st.lists(st.text("ab é", min_size=1, max_size=4), min_size=1, max_size=4).map("\t".join),
        st.just(""),
        st.just(" \t "),
    ),
    max_size=8,
)


@given(lines=LINES, end=st.sampled_from(["\n", "\r\n", ""]), columns=st.integers(2, 3))
def test_tab_fields_equal_those_of_split(lines: list[str], end: str, columns: int) -> None:
    kept = [(i, line) for i, line in enumerate(lines, start=5) if line.strip(" \t")]
    expected = [[part.strip(" ") for part in line.split("\t")] for _, line in kept]
    fields = tab_fields(((end or "\n").join(lines) + end).encode(), 5, columns)
    if any(len(parts) != columns or not all(parts) for parts in expected):
        assert fields is None
    else:
        assert fields is not None
        assert fields.lines.tolist() == [i for i, _ in kept]
        assert [text(fields, row) for row in range(len(kept))] == expected


@given(lines=LINES, comment=st.booleans())
def test_blank_fields_equal_those_of_split(lines: list[str], comment: bool) -> None:
    if comment:
        lines = ["# a comment of many words", *lines]
    kept = [(i, line.split()) for i, line in enumerate(lines, start=1) if line.strip(" \t")]
    kept = [(i, parts) for i, parts in kept if not parts[0].startswith("#")]
    fields = blank_fields(("\n".join(lines) + "\n").encode(), 1, 2)
    if any(len(parts) != 2 for _, parts in kept):
        assert fields is None
    else:
        assert fields is not None
        assert fields.lines.tolist() == [i for i, _ in kept]
        assert [text(fields, row) for row in range(len(kept))] == [parts for _, parts in kept]
