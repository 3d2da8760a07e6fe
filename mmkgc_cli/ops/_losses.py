"""Shared parts of the losses: checks, softmax weights, settings in schemas, gradients.

The native losses compute the gradient of the scores together with the loss, so that the backward
pass only scales it. They have no second derivatives.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops._autograd import first_order


class SelfAdversarialSettings(NamedTuple):
    """The settings of `self_adversarial_loss` in an op that ends in a loss."""

    temperature: float
    form: float
    margin: float

    def check(self, checks: Checks) -> None:
        """The form is a value of `AdversarialForm`."""
        checks.require(
            self.form in (0, 1, 2),
            f"form is {self.form:g}, expected 0 (log_sigmoid), 1 (margin_inside) or 2 "
            "(margin_outside)",
        )


class EntropyWeightedSettings(NamedTuple):
    """The settings of `entropy_weighted_loss` in an op that ends in a loss."""

    easy_above: float
    hard_upto: float
    easy: float
    ambiguous: float
    hard: float
    reduction: float
    temperature: float
    one_sided: float

    def check(self, checks: Checks) -> None:
        """The cuts are in their order, and the reduction is a value of `NegativeReduction`."""
        checks.require(
            self.easy_above >= self.hard_upto,
            f"easy_above is {self.easy_above:g}, expected at least hard_upto, "
            f"which is {self.hard_upto:g}",
        )
        checks.require(
            self.reduction in (0, 1, 2),
            f"reduction is {self.reduction:g}, expected 0 (mean), 1 (sum) or 2 (self_adversarial)",
        )


Settings = SelfAdversarialSettings | EntropyWeightedSettings
_KINDS = (SelfAdversarialSettings, EntropyWeightedSettings)


def pack(settings: Settings) -> tuple[int, list[float]]:
    """`loss` and `settings` of the schemas."""
    return _KINDS.index(type(settings)), [float(number) for number in settings]


def unpack(checks: Checks, loss: int, numbers: Sequence[float]) -> Settings:
    """The settings from `loss` and `settings` of the schemas, checked."""
    checks.require(
        loss in (0, 1), f"loss is {loss}, expected 0 (self_adversarial) or 1 (entropy_weighted)"
    )
    kind = _KINDS[loss]
    expected = len(kind._fields)
    checks.require(
        len(numbers) == expected,
        f"settings holds {len(numbers)} numbers, expected {expected}",
    )
    settings: Settings = kind(*numbers)
    settings.check(checks)
    return settings


def check_scores(checks: Checks, positive: Tensor, negative: Tensor, mask: Tensor | None) -> None:
    """Scores ``[B]`` of the positives and ``[B, N]`` of the negatives, and the mask."""
    checks.dimensions("positive", positive, 1)
    checks.real("positive", positive)
    checks.matrix("negative", negative)
    checks.same_dtype("negative", negative, "positive", positive)
    checks.require(
        negative.shape[0] == positive.shape[0],
        f"negative has {negative.shape[0]} rows, expected {positive.shape[0]} (one per positive)",
    )
    checks.mask(mask, "negative", negative)


def adversarial_weights(negative: Tensor, mask: Tensor, temperature: float) -> Tensor:
    """softmax(temperature * s) over the unmasked negatives of a row; 0 in a row without any."""
    if not negative.shape[1]:
        return negative
    # The score with the largest exponent is subtracted first, as in the kernels: products with the
    # temperature may overflow. Masked scores become infinite, so that their exponents are -inf.
    lowest = torch.inf if temperature < 0 else -torch.inf
    scores = negative.masked_fill(~mask, lowest)
    extreme = scores.amin(1, True) if temperature < 0 else scores.amax(1, True)
    logits = (scores - extreme).mul_(temperature)
    if temperature == 0:
        logits.masked_fill_(~mask, -torch.inf)
    # The softmax of a row of -inf is NaN; NaN that comes from the scores must stay.
    return torch.where(mask.any(1, keepdim=True), logits.softmax(1), 0)


def mean_of_rows(losses: Tensor) -> Tensor:
    """The mean; 0 without rows, so that an empty batch has no effect."""
    return losses.sum() / max(1, losses.shape[0])


def fake(positive: Tensor, negative: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    """Shapes of the loss, of d_positive and of d_negative."""
    return (
        positive.new_empty(()),
        positive.new_empty(positive.shape),
        negative.new_empty(negative.shape),
    )


class _Loss(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, op: Any, *args: Any) -> Tensor:
        loss: Tensor
        loss, d_positive, d_negative = op(*args)
        ctx.save_for_backward(d_positive, d_negative, *args[:2])
        ctx.settings = len(args) - 2
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_positive, d_negative, *scores = ctx.saved_tensors
        scaled = (d_positive * grad, d_negative * grad)
        gradients = first_order("a loss of scores", scaled, (grad, *scores))
        return None, *gradients, *(None,) * ctx.settings


def apply(op: Any, positive: Tensor, negative: Tensor, *settings: Any) -> Tensor:
    """The loss that `op` computes, differentiable in both kinds of scores.

    This is an autograd function around the op. A formula registered for the op takes 40 us per
    call longer, which is as long as the op itself on 1,024 x 32 scores.
    """
    loss: Tensor = _Loss.apply(op, positive, negative, *settings)  # type: ignore[no-untyped-call]
    return loss
