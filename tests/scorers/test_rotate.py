from __future__ import annotations

import math
from typing import Any

import pytest
import torch

from mmkgc_cli.scoring import load_scorer
from tests.scorers.small import score_of, scorer_with

# h = (1, 2i), t = (1, 0), r = (90 degrees, 180 degrees).
WEIGHTS = {
    "entities": [[1.0, 0.0, 0.0, 2.0], [1.0, 0.0, 0.0, 0.0]],
    "phases": [[math.pi / 2, math.pi]],
}


def test_score_is_margin_minus_the_moduli_of_h_r_minus_t() -> None:
    # h r = (i, -2i).
    scorer = scorer_with("rotate", WEIGHTS, dim=2, margin=9.0)
    assert score_of(scorer, 0, 0, 1) == pytest.approx(9 - math.sqrt(2) - 2)


def test_the_reverse_triple_is_rotated_back() -> None:
    # t r = (i, 0) against (1, 2i).
    scorer = scorer_with("rotate", WEIGHTS, dim=2, margin=9.0)
    assert score_of(scorer, 1, 0, 0) == pytest.approx(9 - math.sqrt(2) - 2)
    half = {**WEIGHTS, "phases": [[0.0, math.pi]]}
    scorer = scorer_with("rotate", half, dim=2, margin=9.0)
    assert score_of(scorer, 0, 0, 0) == pytest.approx(9 - 4)


def test_initial_values_stay_within_their_range() -> None:
    scorer_class: Any = load_scorer("rotate")
    scorer = scorer_class(scorer_class.Config(dim=8), 7, 3, torch.Generator().manual_seed(3))
    assert scorer.entities.abs().max() <= 11 / 8
    assert scorer.phases.abs().max() <= math.pi
