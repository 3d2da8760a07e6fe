from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.triples import (
    contained,
    distinct_keys,
    first_occurrences,
    rows_of_keys,
    triple_keys,
)

ROWS = st.lists(st.tuples(st.integers(0, 6), st.integers(0, 3), st.integers(0, 6)), max_size=30)
KEYS = st.lists(st.integers(0, 12), max_size=30).map(lambda keys: np.array(keys, dtype=np.int64))


@given(rows=ROWS)
def test_keys_have_the_order_of_the_rows(
    rows: list[tuple[int, int, int]],
) -> None:
    array = np.array(rows, dtype=np.int32).reshape(-1, 3)
    keys = triple_keys(array, 7, 4)
    assert np.array_equal(rows_of_keys(keys, 7, 4), array)
    assert [tuple(rows[i]) for i in np.argsort(keys, kind="stable")] == sorted(rows)


@given(few=KEYS, many=KEYS)
def test_membership_and_distinct_keys_equal_those_of_sets(
    few: np.ndarray, many: np.ndarray
) -> None:
    assert contained(few, many).tolist() == [key in set(many.tolist()) for key in few.tolist()]
    assert distinct_keys(many).tolist() == sorted(set(many.tolist()))
    seen: set[int] = set()
    expected = [not (key in seen or seen.add(key)) for key in many.tolist()]  # type: ignore[func-returns-value]
    assert first_occurrences(many).tolist() == expected


def test_a_vocabulary_too_large_for_63_bits_is_refused() -> None:
    with pytest.raises(DataError, match="too many"):
        triple_keys(np.zeros((1, 3), dtype=np.int32), 2**31, 1000)
