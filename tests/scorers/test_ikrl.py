from __future__ import annotations

import itertools
from typing import Any

import pytest
import torch

from mmkgc_cli.errors import DataError
from mmkgc_cli.scoring import Scorer
from tests.scorers.featured import distance, featured, unit
from tests.scorers.small import score_of

IMAGES = [[1.0, 2.0, 0.0], [0.0, -1.0, 3.0]]
WEIGHTS = {
    "entities": [[3.0, 4.0], [1.0, -2.0]],
    "relations": [[2.0, 1.0]],
    "projection.weight": [[1.0, 0.0, 2.0], [0.0, 1.0, -1.0]],
}
H, T, R = unit([3, 4]), unit([1, -2]), unit([2, 1])


def make(**config: Any) -> Scorer:
    return featured("ikrl", WEIGHTS, {"image": IMAGES}, dim=2, **config)


def terms(h: torch.Tensor, h_i: torch.Tensor, t: torch.Tensor, t_i: torch.Tensor) -> list[float]:
    return [distance(a, R, b) for a, b in itertools.product((h, h_i), (t, t_i))]


def test_score_is_the_sum_of_four_margins_minus_distances() -> None:
    # P v: (1, 2) for the head and (6, -4) for the tail.
    expected = sum(5 - d for d in terms(H, unit([1, 2]), T, unit([6, -4])))
    assert score_of(make(margin=5.0), 0, 0, 1) == pytest.approx(expected)


def test_released_is_the_mean_with_a_bias_in_the_projection() -> None:
    scorer = make(variant="released", margin=5.0)
    with torch.no_grad():
        scorer.get_parameter("projection.bias").copy_(torch.tensor([1.0, -1.0]))
    expected = 5 - sum(terms(H, unit([2, 1]), T, unit([7, -5]))) / 4
    assert score_of(scorer, 0, 0, 1) == pytest.approx(expected)


@pytest.mark.parametrize("name", ["ikrl", "rsme"])
def test_any_single_modality_can_replace_images(name: str) -> None:
    pictured = featured(name, {}, {"image": IMAGES}, dim=2)
    for modality in ("text", "numeric", "structure", "audio", "video"):
        other = featured(name, {}, {modality: IMAGES}, dim=2, modality=modality)
        assert type(other).modalities_of(other.config) == (modality,)
        assert score_of(other, 0, 0, 1) == score_of(pictured, 0, 0, 1)
    with pytest.raises(DataError, match="image"):
        featured(name, {}, {"text": IMAGES}, dim=2)


def test_an_entity_without_an_image_has_a_zero_row_without_gradient() -> None:
    scorer = featured("ikrl", WEIGHTS, {"image": [IMAGES[0], [0.0] * 3]}, dim=2, margin=5.0)
    zero = torch.zeros(2, dtype=torch.float64)
    expected = sum(5 - d for d in terms(H, unit([1, 2]), T, zero))
    assert score_of(scorer, 0, 0, 1) == pytest.approx(expected)
    scorer.score(torch.tensor([[0, 0, 1]])).sum().backward()
    grad = scorer.get_parameter("images.vectors").grad
    assert grad is not None
    assert grad[0].any()
    assert not grad[1].any()


@pytest.mark.parametrize("freeze", [False, True])
def test_images_are_trained_or_frozen(freeze: bool) -> None:
    scorer = make(freeze_features=freeze)
    trained = "images.vectors" in dict(scorer.named_parameters())
    assert trained != freeze
    assert scorer.trains_features("image") == trained
    # What is frozen is no part of a checkpoint.
    assert ("images.vectors" in scorer.state_dict()) == trained
