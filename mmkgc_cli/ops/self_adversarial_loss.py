"""Losses whose negatives weigh by their own softmax, with the gradient made in the same pass."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmkgc_cli.ops import _losses, _native
from mmkgc_cli.ops._arguments import Checks

NAME = "self_adversarial_loss"
_CHECKS = Checks(NAME)


class AdversarialForm(IntEnum):
    """What the weights stand in; values as in the op's schema."""

    log_sigmoid = 0
    margin_inside = 1
    margin_outside = 2


def self_adversarial_loss(
    positive: Tensor,
    negative: Tensor,
    usable: Tensor | None,
    temperature: float,
    form: AdversarialForm = AdversarialForm.log_sigmoid,
    margin: float = 0.0,
) -> Tensor:
    """Self-adversarial losses, w = softmax(temperature * s) over the usable negatives of a row.

    - ``log_sigmoid``: -1/2 mean_b [ log sig(s+) + sum_i w_i log sig(-s_i) ], that of RotatE (Sun et
      al. 2019, eq. 5 and 6); scores already contain the margin.
    - ``margin_inside``: mean_b sum_i w_i max(0, margin - s+ + s_i), as MACO's code has it.
    - ``margin_outside``: mean_b max(0, margin - s+ + sum_i w_i s_i), as MACO's paper (eq. 9).

    Weights are constants: no gradient goes through them.

    Args:
        positive: ``[B]`` float32 or float64.
        negative: ``[B, N]`` of the same dtype.
        usable: ``[B, N]`` bool; the others have weight 0, whatever they are. None: all are.
        temperature: 0 weighs all usable negatives alike.
        form: one of the three.
        margin: of the two margin forms.

    Returns:
        The loss, a scalar; NaN if a score that counts is NaN. A row without usable negatives
        leaves its positive under ``log_sigmoid`` and is 0 under the margin forms, which only
        compare: it counts in the mean either way. Without rows the loss is 0.

    Raises:
        RuntimeError: on wrong shapes or dtypes, naming the argument.
    """
    args = (positive, negative, usable, float(temperature), int(form), float(margin))
    if _native.has_kernel(NAME, positive.device.type):
        return _losses.apply(torch.ops.mmkgc.self_adversarial_loss.default, *args)
    return reference(*args)


def _check_arguments(positive: Tensor, negative: Tensor, usable: Tensor | None, form: int) -> None:
    """The checks of ``checks/self_adversarial_arguments.h``, word for word; a test compares."""
    _CHECKS.loss_scores(positive, negative, usable)
    _losses.check_form(_CHECKS, form)


def reference(
    positive: Tensor,
    negative: Tensor,
    usable: Tensor | None,
    temperature: float,
    form: int = AdversarialForm.log_sigmoid,
    margin: float = 0.0,
) -> Tensor:
    """`self_adversarial_loss` in torch, whose autograd makes the gradients."""
    _check_arguments(positive, negative, usable, form)
    if usable is None:
        usable = torch.ones_like(negative, dtype=torch.bool)
    with torch.no_grad():
        weights = _losses.adversarial_weights(negative, usable, temperature)
    if form == AdversarialForm.log_sigmoid:
        # Masked before, not after: 0 times the gradient at NaN would be NaN.
        hardness = (weights * logsigmoid(-negative.masked_fill(~usable, 0))).sum(1)
        return -0.5 * _losses.mean_of_rows(logsigmoid(positive) + hardness)
    gap = margin - positive
    if form == AdversarialForm.margin_inside:
        above = (gap[:, None] + negative).masked_fill(~usable, 0)
        return _losses.mean_of_rows((weights * above.relu()).sum(1))
    mean = (weights * negative.masked_fill(~usable, 0)).sum(1)
    return _losses.mean_of_rows((gap + mean).masked_fill(~usable.any(1), 0).relu())


if _native.library().loaded:
    torch.library.register_fake(f"mmkgc::{NAME}")(_losses.fake)
