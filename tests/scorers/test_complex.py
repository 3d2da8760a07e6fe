from __future__ import annotations

from tests.scorers.small import score_of, scorer_with

# h = (1 + 2i, 3), t = (4 - i, 1i), r = (2i, 1 + 1i).
WEIGHTS = {
    "entities": [[1.0, 3.0, 2.0, 0.0], [4.0, 0.0, -1.0, 1.0]],
    "relations": [[0.0, 1.0, 2.0, 1.0]],
}


def test_score_is_the_real_part_of_h_r_and_the_conjugate_of_t() -> None:
    scorer = scorer_with("complex", WEIGHTS, dim=2)
    expected = ((1 + 2j) * 2j * (4 + 1j) + 3 * (1 + 1j) * -1j).real
    assert score_of(scorer, 0, 0, 1) == expected


def test_the_reverse_triple_has_the_conjugate_relation() -> None:
    scorer = scorer_with("complex", WEIGHTS, dim=2)
    expected = ((4 - 1j) * 2j * (1 - 2j) + 1j * (1 + 1j) * 3).real
    assert score_of(scorer, 1, 0, 0) == expected
    assert score_of(scorer, 1, 0, 0) != score_of(scorer, 0, 0, 1)
