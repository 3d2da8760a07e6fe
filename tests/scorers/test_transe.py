from __future__ import annotations

import pytest

from tests.scorers.small import score_of, scorer_with

WEIGHTS = {"entities": [[1.0, 2.0], [3.0, 4.0]], "relations": [[1.0, -1.0]]}


def test_score_is_margin_minus_the_length_of_h_plus_r_minus_t() -> None:
    # (1, 2) + (1, -1) - (3, 4) = (-1, -3).
    l1 = scorer_with("transe", WEIGHTS, dim=2, margin=5.0)
    assert score_of(l1, 0, 0, 1) == pytest.approx(5 - 4)
    l2 = scorer_with("transe", WEIGHTS, dim=2, margin=5.0, norm="l2")
    assert score_of(l2, 0, 0, 1) == pytest.approx(5 - 10**0.5)


def test_with_normalize_all_rows_have_length_one() -> None:
    scorer = scorer_with("transe", WEIGHTS, dim=2, margin=0.0, normalize=True)
    h = (1 / 5**0.5, 2 / 5**0.5)
    r = (1 / 2**0.5, -1 / 2**0.5)
    t = (0.6, 0.8)
    expected = -sum(abs(a + b - c) for a, b, c in zip(h, r, t, strict=True))
    assert score_of(scorer, 0, 0, 1) == pytest.approx(expected)


def test_a_triple_and_its_reverse_score_differently() -> None:
    scorer = scorer_with("transe", {**WEIGHTS, "relations": [[2.0, -1.0]]}, dim=2, margin=5.0)
    assert (score_of(scorer, 0, 0, 1), score_of(scorer, 1, 0, 0)) == (5 - 3, 5 - 5)
