"""Losses with negatives weighted by a softmax of their scores; gradients in the same pass."""

from __future__ import annotations

from enum import IntEnum

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmkgc_cli.ops import _losses, _native
from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops._autograd import register

NAME = "self_adversarial_loss"
_CHECKS = Checks(NAME)


class AdversarialForm(IntEnum):
    """The expression that contains the weights; the values are part of the schema."""

    log_sigmoid = 0
    margin_inside = 1
    margin_outside = 2


def self_adversarial_loss(
    positive: Tensor,
    negative: Tensor,
    mask: Tensor | None,
    temperature: float,
    *,
    form: AdversarialForm = AdversarialForm.log_sigmoid,
    margin: float = 0.0,
) -> Tensor:
    """Self-adversarial losses, w = softmax(temperature * s) over the unmasked negatives of a row.

    - ``log_sigmoid``: -1/2 mean_b [ log sig(s+) + sum_i w_i log sig(-s_i) ], that of RotatE (Sun et
      al. 2019, eq. 5 and 6); scores already contain the margin.
    - ``margin_inside``: mean_b sum_i w_i max(0, margin - s+ + s_i), as in MACO's code.
    - ``margin_outside``: mean_b max(0, margin - s+ + sum_i w_i s_i), as in MACO's paper (eq. 9).

    The weights are constants without gradients.

    Args:
        positive: ``[B]`` float32 or float64.
        negative: ``[B, N]`` of the same dtype.
        mask: ``[B, N]`` bool; negatives with False have weight 0, even if NaN. None keeps all.
        temperature: 0 gives all unmasked negatives the same weight.
        form: one of the three expressions.
        margin: of the two margin forms.

    Returns:
        The loss, a scalar; NaN if an unmasked score is NaN. A row without unmasked negatives has
        the term of its positive only under ``log_sigmoid`` and is 0 under the margin forms; it
        counts in the mean either way. Without rows the loss is 0.

    Raises:
        RuntimeError: on wrong shapes or dtypes; the message names the argument.
    """
    args = (positive, negative, mask, float(temperature), int(form), float(margin))
    if _native.has_kernel(NAME, positive.device.type):
        return _losses.apply(torch.ops.mmkgc.self_adversarial_loss.default, *args)
    return reference(*args)


def reference(
    positive: Tensor,
    negative: Tensor,
    mask: Tensor | None,
    temperature: float,
    form: int = AdversarialForm.log_sigmoid,
    margin: float = 0.0,
) -> Tensor:
    """`self_adversarial_loss` in torch with autograd's gradients."""
    _losses.check_scores(_CHECKS, positive, negative, mask)
    _losses.SelfAdversarialSettings(temperature, form, margin).check(_CHECKS)
    if mask is None:
        mask = torch.ones_like(negative, dtype=torch.bool)
    with torch.no_grad():
        weights = _losses.adversarial_weights(negative, mask, temperature)
    if form == AdversarialForm.log_sigmoid:
        # Scores are masked, not terms: 0 times the gradient at NaN would be NaN.
        hardness = (weights * logsigmoid(-negative.masked_fill(~mask, 0))).sum(1)
        return -0.5 * _losses.mean_of_rows(logsigmoid(positive) + hardness)
    gap = margin - positive
    if form == AdversarialForm.margin_inside:
        above = (gap[:, None] + negative).masked_fill(~mask, 0)
        return _losses.mean_of_rows((weights * above.relu()).sum(1))
    mean = (weights * negative.masked_fill(~mask, 0)).sum(1)
    return _losses.mean_of_rows((gap + mean).masked_fill(~mask.any(1), 0).relu())


register(NAME, {"": _losses.fake})
