"""What the losses share: their softmax weights, and how torch learns of their gradients.

The native losses make the gradient of the scores together with the loss, so that backward only
scales it. They have no second derivatives.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops._autograd import first_order


def adversarial_weights(negative: Tensor, usable: Tensor, temperature: float) -> Tensor:
    """softmax(temperature * s) over the usable negatives of a row; all 0 where there are none."""
    logits = (temperature * negative).masked_fill(~usable, -torch.inf)
    # A row of -inf alone would come out of the softmax as NaN; real NaN must stay.
    return torch.where(usable.any(1, keepdim=True), logits.softmax(1), 0)


def mean_of_rows(losses: Tensor) -> Tensor:
    """The mean; 0 for no rows, since a batch without triples teaches nothing."""
    return losses.sum() / max(1, losses.shape[0])


def check_form(checks: Checks, form: float) -> None:
    """One of the three, as ``csrc/bindings/checks/loss_checks.h`` has it."""
    checks.require(
        form in (0, 1, 2),
        f"form is {form:g}, expected 0 (log_sigmoid), 1 (margin_inside) or 2 (margin_outside)",
    )


def check_cuts(checks: Checks, easy_above: float, hard_upto: float) -> None:
    """In their order."""
    checks.require(
        easy_above >= hard_upto,
        f"cuts are {easy_above:g} and {hard_upto:g}, expected the first no smaller than the second",
    )


def check_reduction(checks: Checks, reduction: float) -> None:
    """One of the three."""
    checks.require(
        reduction in (0, 1, 2),
        f"reduction is {reduction:g}, expected 0 (mean), 1 (sum) or 2 (self_adversarial)",
    )


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
        ctx.others = len(args) - 2
        return loss

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
        d_positive, d_negative, *scores = ctx.saved_tensors
        scaled = (d_positive * grad, d_negative * grad)
        made = first_order("a loss of scores", scaled, (grad, *scores))
        return None, *made, *(None,) * ctx.others


def apply(op: Any, positive: Tensor, negative: Tensor, *rest: Any) -> Tensor:
    """The loss that `op` makes, differentiable in both kinds of scores.

    A function of autograd around the op, not a formula registered for it: that takes 40 us a call
    longer, as long as the op itself on 1,024 x 32 scores.
    """
    loss: Tensor = _Loss.apply(op, positive, negative, *rest)  # type: ignore[no-untyped-call]
    return loss
