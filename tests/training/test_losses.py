from __future__ import annotations

import math

import pytest
import torch
from pydantic import ValidationError
from torch.nn.functional import binary_cross_entropy_with_logits, cross_entropy

from mmkgc_cli.training.losses import make_loss
from mmkgc_cli.training.settings import variants
from tests.training.programs import loss_of

POSITIVE = torch.tensor([2.0, -1.0, 0.5], dtype=torch.float64)
NEGATIVE = torch.tensor([[1.0, -2.0], [0.3, 4.0], [-1.0, -1.5]], dtype=torch.float64)
USABLE = torch.tensor([[True, True], [True, False], [False, False]])


def test_bce_is_torchs_with_the_negatives_averaged_or_summed() -> None:
    def one(s: float, label: float) -> float:
        value = torch.tensor(s, dtype=torch.float64)
        return float(binary_cross_entropy_with_logits(value, torch.full_like(value, label)))

    averaged = [one(2.0, 1) + (one(1.0, 0) + one(-2.0, 0)) / 2, one(-1.0, 1) + one(0.3, 0)]
    summed = [one(2.0, 1) + one(1.0, 0) + one(-2.0, 0), averaged[1]]
    for reduction, rows in (("mean", averaged), ("sum", summed)):
        loss = make_loss(loss_of("bce", reduction=reduction))
        expected = (sum(rows) + one(0.5, 1)) / 3
        assert float(loss(POSITIVE, NEGATIVE, USABLE)) == pytest.approx(expected, rel=1e-12)


def test_softmax_is_torchs_cross_entropy_of_the_positive() -> None:
    loss = make_loss(loss_of("softmax"))
    scores = torch.cat([POSITIVE[:, None], NEGATIVE], 1)
    first = torch.zeros(3, dtype=torch.int64)
    assert torch.allclose(loss(POSITIVE, NEGATIVE, None), cross_entropy(scores, first))
    # A row whose negatives are all unusable has nothing to tell apart.
    expected = (-math.log(math.e**2 / (math.e**2 + math.e + math.e**-2))
                - math.log(math.e**-1 / (math.e**-1 + math.e**0.3))) / 3  # fmt: skip
    assert float(loss(POSITIVE, NEGATIVE, USABLE)) == pytest.approx(expected, rel=1e-12)
    assert float(loss(POSITIVE[:0], NEGATIVE[:0], None)) == 0


@pytest.mark.parametrize("form", ["margin-inside", "margin-outside"])
def test_the_hinge_stands_where_its_name_says(form: str) -> None:
    loss = make_loss(loss_of(form, temperature=0.0, margin=2.0))
    gaps = 2.0 - POSITIVE[:, None] + NEGATIVE
    inside = gaps.relu().mean(1).mean()
    outside = gaps.mean(1).relu().mean()
    expected = inside if form == "margin-inside" else outside
    assert inside != outside
    assert torch.allclose(loss(POSITIVE, NEGATIVE, None), expected)


def test_entropy_weights_are_those_of_the_settings() -> None:
    loss = make_loss(loss_of("entropy-weighted", thresholds=[0.2, 0.8], weights=[0.0, 0.0, 2.0]))
    # Of the negatives only 1, 0.3 and -1 are less than 1.136 from 0, where entropy is 0.8 bits.
    hard = torch.tensor([[True, False], [True, False], [True, False]])
    softplus = torch.nn.functional.softplus
    expected = (softplus(-POSITIVE) + (2 * softplus(NEGATIVE) * hard).mean(1)).mean()
    assert torch.allclose(loss(POSITIVE, NEGATIVE, None), expected)


def test_one_sided_entropy_makes_negatives_that_are_held_to_be_true_hard() -> None:
    negative = torch.tensor([[9.0, -9.0, 2.0]])
    usable, positive = None, torch.tensor([0.0])
    softplus = torch.nn.functional.softplus(negative)
    found = []
    for one_sided in (False, True):
        settings = loss_of("entropy-weighted", reduction="sum", one_sided=one_sided)
        found.append(float(make_loss(settings)(positive, negative, usable)) - math.log(2))
    for total, weights in zip(found, ([0.5, 0.5, 1.5], [1.2, 0.5, 1.2]), strict=True):
        assert total == pytest.approx(float((torch.tensor(weights) * softplus).sum()), rel=1e-5)


@pytest.mark.parametrize("name", sorted(variants("loss")))
def test_a_better_positive_lowers_every_loss(name: str) -> None:
    loss = make_loss(loss_of(name))
    positive = POSITIVE.clone().requires_grad_()
    (slope,) = torch.autograd.grad(loss(positive, NEGATIVE, None), positive)
    assert (slope <= 0).all()
    assert (slope < 0).any()


def test_thresholds_in_the_wrong_order_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"thresholds must ascend, got 0.9 before 0.1"):
        loss_of("entropy-weighted", thresholds=[0.9, 0.1])


def test_negative_weights_are_refused() -> None:
    with pytest.raises(ValidationError, match=r"weights must be 0 or more, got -1"):
        loss_of("entropy-weighted", weights=[0.0, -1.0, 1.0])
