from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import EncoderOptions, Skip
from mmkgc_cli.extraction.numeric_encoders import Quantiles
from mmkgc_cli.extraction.numeric_inputs import Number, Numbers


def numbers(**values: float | list[float]) -> Numbers:
    return tuple(
        Number(name, value, str(value))
        for name, of in values.items()
        for value in (of if isinstance(of, list) else [of])
    )


def fitted(items: list[Numbers], min_count: int = 1) -> Quantiles:
    encoder = Quantiles(EncoderOptions(min_count=min_count))
    encoder.fit(items)
    return encoder


def test_a_quantile_is_the_mean_place_among_all_values() -> None:
    items = [numbers(b=1.0), numbers(b=2.0, a=-7.0), numbers(b=2.0), numbers(b=1e300)]
    encoder = fitted(items)
    assert encoder.width == 4
    # a: one value, in the middle of itself; b: 1 is below 3 of 4, 2 and 2 share two places.
    assert encoder.encode(items).tolist() == [
        [0.0, 0.125, 1.0, 0.0], [0.5, 0.5, 0.0, 0.0], [0.0, 0.5, 1.0, 0.0], [0.0, 0.875, 1.0, 0.0]
    ]  # fmt: skip
    assert encoder.notes == ("columns: quantile, then whether it is missing, of a, b",)


def test_several_values_of_an_attribute_are_averaged_in_quantiles() -> None:
    items = [numbers(a=[1.0, 1e308, 1e308]), numbers(a=5.0)]
    result = fitted(items).encode(items)
    assert result[0, 0] == np.float32((1 / 8 + 3 / 4 + 3 / 4) / 3)
    assert result[1].tolist() == [3 / 8, 0.0]


def test_attributes_of_few_entities_have_no_column() -> None:
    items = [numbers(a=float(i), rare=[1.0, 2.0, 3.0]) if i == 0 else numbers(a=float(i))
               for i in range(3)]  # fmt: skip
    encoder = fitted(items, min_count=2)
    assert encoder.width == 2
    assert encoder.notes[1] == "1 attribute of fewer than 2 entities left out"
    encoder.admit(items[0])
    with pytest.raises(Skip, match="no attribute of at least 2 entities"):
        encoder.admit(numbers(rare=1.0))
    with pytest.raises(
        DataError, match="no attribute has numbers of 4 entities; the largest count is 3"
    ):
        fitted(items, min_count=4)
    with pytest.raises(DataError, match="the largest count is 0; lower --min-count"):
        fitted([])


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.randoms(use_true_random=False))
def test_quantiles_keep_the_order_of_values_and_their_mean_is_a_half(
    values: list[float], rng: object
) -> None:
    items = [numbers(a=value) for value in values]
    shuffled = list(items)
    rng.shuffle(shuffled)  # type: ignore[attr-defined]
    result = fitted(shuffled).encode(items)[:, 0].astype(float)
    order = np.argsort(values, kind="stable")
    assert (np.diff(result[order]) >= 0).all()
    assert ((np.diff(result[order]) > 0) == (np.diff(np.array(values)[order]) > 0)).all()
    assert result.mean() == pytest.approx(0.5, abs=1e-6)
