from __future__ import annotations

import pytest
import torch

from mmkgc_cli.scoring import Side
from tests.scorers.small import score_of, scorer_with

# h = (3, 4) / 5, t = (1, 0); the second relation leaves out a coordinate of tails.
WEIGHTS = {
    "entities": [[3.0, 4.0], [2.0, 0.0]],
    "relations": [[1.0, -2.0, 0.5, 3.0], [1.0, -2.0, 0.0, 3.0]],
}


def test_score_is_margin_minus_the_distance_of_weighted_unit_rows() -> None:
    scorer = scorer_with("pairre", WEIGHTS, dim=2, margin=5.0)
    # (0.6, -1.6) - (0.5, 0)
    assert score_of(scorer, 0, 0, 1) == pytest.approx(5 - 0.1 - 1.6)


def test_the_score_does_not_depend_on_the_length_of_an_entity() -> None:
    longer = {**WEIGHTS, "entities": [[30.0, 40.0], [0.1, 0.0]]}
    scores = [score_of(scorer_with("pairre", w, dim=2), 0, 0, 1) for w in (WEIGHTS, longer)]
    assert scores[0] == pytest.approx(scores[1])


def test_factors_of_zero_give_finite_scores_on_both_sides() -> None:
    scorer = scorer_with("pairre", WEIGHTS, dim=2, margin=0.0)
    assert score_of(scorer, 0, 1, 1) == pytest.approx(-0.6 - 1.6)
    known = torch.tensor([1]), torch.tensor([1])
    # (0, 0) against (0.6, -1.6) and (1, 0).
    heads = scorer.score_all(*known, Side.head)[0].tolist()
    assert heads == pytest.approx([-0.6 - 1.6, -1.0])


def test_relations_have_two_rows_of_weights_and_entities_one() -> None:
    scorer = scorer_with("pairre", WEIGHTS, dim=2)
    assert scorer.entities.shape == (2, 2)
    assert scorer.relations.shape == (2, 4)
