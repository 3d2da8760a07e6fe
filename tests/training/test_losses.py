from __future__ import annotations

import pytest
import torch
from torch.nn.functional import logsigmoid

from mmkgc_cli.training.losses import self_adversarial_loss

ALL = torch.ones(2, 3, dtype=torch.bool)


def test_closed_form_value() -> None:
    positive = torch.tensor([1.0, -0.5], dtype=torch.float64)
    negative = torch.tensor([[0.0, 1.0, -1.0], [2.0, 0.5, 0.5]], dtype=torch.float64)
    weights = torch.softmax(2.0 * negative, 1)
    expected = 0.0
    for b in range(2):
        row = sum(float(weights[b, i] * logsigmoid(-negative[b, i])) for i in range(3))
        expected -= 0.5 * (float(logsigmoid(positive[b])) + row) / 2
    assert self_adversarial_loss(positive, negative, ALL, 2.0).item() == pytest.approx(expected)


def test_weights_carry_no_gradient() -> None:
    positive = torch.zeros(2, dtype=torch.float64)
    negative = torch.randn(2, 3, dtype=torch.float64, requires_grad=True)
    self_adversarial_loss(positive, negative, ALL, 1.5).backward()
    weights = torch.softmax(1.5 * negative.detach(), 1)
    # d/ds of -w log sig(-s) / (2 B) with w held fixed.
    expected = weights * torch.sigmoid(negative.detach()) / 4
    torch.testing.assert_close(negative.grad, expected)


def test_unusable_negatives_have_no_part() -> None:
    usable = torch.tensor([[True, False, True], [True, True, True]])
    negative = torch.randn(2, 3, dtype=torch.float64)
    spoiled = negative.clone()
    spoiled[0, 1] = 50.0
    positive = torch.randn(2, dtype=torch.float64)
    a = self_adversarial_loss(positive, negative, usable, 1.0)
    assert a == self_adversarial_loss(positive, spoiled, usable, 1.0)


def test_a_row_without_usable_negatives_leaves_its_positive() -> None:
    usable = torch.zeros(2, 3, dtype=torch.bool)
    positive = torch.tensor([0.3, -0.3], dtype=torch.float64, requires_grad=True)
    loss = self_adversarial_loss(positive, torch.randn(2, 3, dtype=torch.float64), usable, 1.0)
    assert loss.item() == pytest.approx(float(-0.5 * logsigmoid(positive.detach()).mean()))
    loss.backward()
    assert positive.grad is not None
    assert positive.grad.isfinite().all()


def test_nan_is_never_hidden() -> None:
    negative = torch.tensor([[0.0, float("nan"), 1.0], [0.0, 1.0, 2.0]])
    assert self_adversarial_loss(torch.zeros(2), negative, ALL, 1.0).isnan()


def test_temperature_zero_weighs_all_alike() -> None:
    negative = torch.randn(2, 3, dtype=torch.float64)
    positive = torch.zeros(2, dtype=torch.float64)
    expected = -0.5 * (logsigmoid(positive) + logsigmoid(-negative).mean(1)).mean()
    assert self_adversarial_loss(positive, negative, ALL, 0.0) == pytest.approx(expected.item())


def test_large_scores_do_not_overflow() -> None:
    negative = torch.tensor([[1e4, -1e4, 0.0], [1e4, 1e4, 1e4]], requires_grad=True)
    positive = torch.tensor([-1e4, 1e4], requires_grad=True)
    loss = self_adversarial_loss(positive, negative, ALL, 1.0)
    loss.backward()
    assert loss.isfinite()
    assert negative.grad is not None
    assert negative.grad.isfinite().all()
