from __future__ import annotations

from typing import Any

import pytest
import torch

from mmkgc_cli.scoring import Side
from mmkgc_cli.scoring.contract import Batch
from tests.scorers.featured import featured, unit
from tests.scorers.small import score_of

IMAGES = [[1.0, 2.0, 2.0], [2.0, 0.0, 1.0], [0.0, 0.0, 0.0]]
COSINE = float(unit(IMAGES[0]) @ unit(IMAGES[1]))
# One complex number an entity and relation; the second relation is the inverse of the first.
PAPER = {
    "entities": [[1.0, 2.0], [4.0, -1.0], [1.0, 1.0]],
    "relations": [[0.0, 2.0], [3.0, 1.0]],
    "projection.weight": [[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]],
}
# (1 - alpha) E + alpha P v at alpha = 1/4, P v being 3 + 4i and 3 + 0i.
H, T = 0.75 * (1 + 2j) + 0.25 * (3 + 4j), 0.75 * (4 - 1j) + 0.25 * 3
SETTINGS: dict[str, Any] = {"dim": 1, "alpha": 0.25, "beta": 0.8}


def test_score_is_complex_on_mixed_rows_and_the_cosine_of_the_raw_images() -> None:
    scorer = featured("rsme", PAPER, {"image": IMAGES}, **SETTINGS)
    expected = 0.8 * (H * 2j * T.conjugate()).real + 0.2 * COSINE
    assert score_of(scorer, 0, 0, 1) == pytest.approx(expected)


def test_head_queries_use_the_inverse_relation() -> None:
    scorer = featured("rsme", PAPER, {"image": IMAGES}, **SETTINGS)
    one = torch.tensor([1]), torch.tensor([0]), torch.tensor([0])
    expected = 0.8 * (T * (3 + 1j) * H.conjugate()).real + 0.2 * COSINE
    assert scorer.score_answers(*one, Side.head).item() == pytest.approx(expected)


def test_training_uses_only_the_first_term_without_its_weight() -> None:
    scorer = featured("rsme", PAPER, {"image": IMAGES}, **SETTINGS).train()
    assert score_of(scorer, 0, 0, 1) == pytest.approx((H * 2j * T.conjugate()).real)


def test_an_entity_without_an_image_has_zero_similarity() -> None:
    scorer = featured("rsme", PAPER, {"image": IMAGES}, **SETTINGS)
    tail = 0.75 * (1 + 1j)
    expected = 0.8 * (H * 2j * tail.conjugate()).real
    assert score_of(scorer, 0, 0, 2) == pytest.approx(expected)


def test_the_gate_closes_for_relations_with_dissimilar_images() -> None:
    images = [[1.0, 0.0], [1.0, 0.1], [0.0, 1.0], [0.1, 1.0]]
    scorer = featured("rsme", {}, {"image": images}, relations=3, dim=1, gate=0.6)
    # Relation 0 pairs those that look alike: rank 2 of 4, after the head itself. Relation 1 those
    # that do not, ranks 4 and 3; relation 2 has no triples.
    scorer.fit(torch.tensor([[0, 0, 1], [2, 0, 3], [0, 1, 2], [1, 1, 3]]))
    assert scorer.get_buffer("gates").tolist() == [1, 0, 0]
    one = torch.tensor([0])
    open_, shut = (scorer.query(one, torch.tensor([r]), Side.tail) for r in (0, 1))
    assert isinstance(open_, torch.Tensor)
    assert isinstance(shut, torch.Tensor)
    assert open_[0, 2:].tolist() == images[0]
    assert shut[0, 2:].tolist() == [0, 0]


def test_gates_are_open_by_default_and_tied_ranks_are_realistic() -> None:
    scorer = featured("rsme", {}, {"image": [[0.0], [0.0], [1.0]]}, dim=1)
    scorer.fit(torch.tensor([[2, 0, 0]]))
    assert scorer.get_buffer("gates").tolist() == [1]
    # Of 3 entities all are as unlike a zero row: rank 2, a share of 2/3.
    for gate, left in ((0.66, 0), (0.67, 1)):
        scorer = featured("rsme", {}, {"image": [[0.0], [0.0], [1.0]]}, dim=1, gate=gate)
        scorer.fit(torch.tensor([[0, 0, 1]]))
        assert scorer.get_buffer("gates").tolist() == [left]


def test_released_concatenates_images_and_negates_the_score() -> None:
    weights: dict[str, Any] = {
        "entities": [[1.0, 2.0], [4.0, -1.0], [1.0, 1.0]],
        # [re of the row, re of the image | im of the row, im of the image]
        "relations": [[0.0, 1.0, 2.0, -1.0]],
        "projection.weight": [[1.0, 0.0, 1.0], [0.0, 2.0, 0.0]],
        "projection.bias": [1.0, -1.0],
    }
    scorer = featured("rsme", weights, {"image": IMAGES}, dim=1, variant="released")
    h_i, t_i = 4 + 3j, 4 - 1j
    complex_part = (1 + 2j) * 2j * (4 + 1j) + h_i * (1 - 1j) * t_i.conjugate()
    cosine = float(unit([4, 3]) @ unit([4, -1]))
    expected = -(0.99 * complex_part.real + 0.01 * cosine)
    assert score_of(scorer, 0, 0, 1) == pytest.approx(expected)
    scorer.train()
    assert score_of(scorer, 0, 0, 1) == pytest.approx(expected)


def test_penalties_are_n3_and_the_mean_squares_of_the_released_code() -> None:
    batch = Batch(torch.tensor([[0, 0, 1], [0, 0, 1]]))
    paper = featured("rsme", PAPER, {"image": IMAGES}, penalty=0.5, **SETTINGS)
    # Both relations of a triple count half, as each has a share in its two queries.
    cubes = abs(H) ** 3 + abs(T) ** 3 + (abs(2j) ** 3 + abs(3 + 1j) ** 3) / 2
    assert paper.extra_losses(batch)["penalty"].item() == pytest.approx(0.5 * cubes)
    weights: dict[str, Any] = {
        "entities": PAPER["entities"],
        "relations": [[0.0, 1.0, 2.0, -1.0]],
        "projection.weight": PAPER["projection.weight"],
        "projection.bias": [0.0, 0.0],
    }
    released = featured("rsme", weights, {"image": IMAGES}, dim=1, variant="released")
    squares = [1, 4, 16, 1, (0 + 1) / 2, (4 + 1) / 2, (9 + 16) / 2, 9 / 2]
    assert released.extra_losses(batch)["penalty"].item() == pytest.approx(sum(squares) / 8)
    assert not featured("rsme", PAPER, {"image": IMAGES}, **SETTINGS).extra_losses(batch)
