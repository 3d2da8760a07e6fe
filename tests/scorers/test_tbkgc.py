from __future__ import annotations

from typing import Any

import pytest
import torch

from mmkgc_cli.errors import DataError
from tests.scorers.featured import distance, featured, unit
from tests.scorers.small import score_of

IMAGES = [[1.0, 2.0], [0.0, -1.0]]
TEXTS = [[1.0, 0.0, 1.0], [2.0, 2.0, 0.0]]
WEIGHTS = {"entities": [[3.0, 4.0], [1.0, -2.0]], "relations": [[2.0, 1.0]]}
R = unit([2, 1])


def five(h: list[float], m_h: list[float], t: list[float], m_t: list[float]) -> list[float]:
    """The terms, of rows that are not of length 1 yet."""
    j_h = [a + b for a, b in zip(h, m_h, strict=True)]
    j_t = [a + b for a, b in zip(t, m_t, strict=True)]
    blocks = [(h, t), (m_h, m_t), (m_h, t), (h, m_t), (j_h, j_t)]
    return [distance(unit(a), R, unit(b)) for a, b in blocks]


def test_score_is_the_sum_of_five_margins_minus_distances() -> None:
    weights: dict[str, Any] = {
        **WEIGHTS,
        "projections.image.weight": [[1.0, 3.0]],
        "projections.text.weight": [[1.0, 0.0, -2.0]],
    }
    vectors = {"image": IMAGES, "text": TEXTS}
    scorer = featured("tbkgc", weights, vectors, dim=2, margin=4.0)
    # An image makes one half of m, a text the other.
    expected = sum(4 - d for d in five([3, 4], [7, -1], [1, -2], [-3, 2]))
    assert score_of(scorer, 0, 0, 1) == pytest.approx(expected)


def test_released_is_the_mean_over_images_alone() -> None:
    weights: dict[str, Any] = {
        **WEIGHTS,
        "projections.image.weight": [[1.0, 3.0], [2.0, 0.0]],
        "projections.image.bias": [1.0, -1.0],
    }
    scorer = featured("tbkgc", weights, {"image": IMAGES}, dim=2, margin=4.0, variant="released")
    expected = 4 - sum(five([3, 4], [8, 1], [1, -2], [-2, -1])) / 5
    assert score_of(scorer, 0, 0, 1) == pytest.approx(expected)


def test_images_get_the_remainder_of_an_odd_width() -> None:
    scorer = featured("tbkgc", {}, {"image": IMAGES, "text": TEXTS}, dim=5)
    assert scorer.get_parameter("projections.image.weight").shape == (3, 2)
    assert scorer.get_parameter("projections.text.weight").shape == (2, 3)
    assert scorer.candidates(torch.tensor([0])).shape == (1, 15)  # type: ignore[union-attr]


def test_the_paper_s_form_needs_texts() -> None:
    with pytest.raises(DataError, match="expected features of modality 'text', got image; pass"):
        featured("tbkgc", {}, {"image": IMAGES}, dim=4)
