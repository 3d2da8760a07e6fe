from __future__ import annotations

from tests.scorers.small import score_of, scorer_with

WEIGHTS = {"entities": [[1.0, 2.0], [3.0, 4.0]], "relations": [[2.0, -1.0]]}


def test_score_is_the_sum_of_products() -> None:
    scorer = scorer_with("distmult", WEIGHTS, dim=2)
    assert score_of(scorer, 0, 0, 1) == 1 * 2 * 3 - 2 * 1 * 4


def test_the_score_is_symmetric_in_head_and_tail() -> None:
    scorer = scorer_with("distmult", WEIGHTS, dim=2)
    assert score_of(scorer, 0, 0, 1) == score_of(scorer, 1, 0, 0)
