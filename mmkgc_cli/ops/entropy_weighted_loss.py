"""A log-sigmoid loss with negatives weighted by the model's certainty (EGNS of MoCME)."""

from __future__ import annotations

import functools
import math
from collections.abc import Sequence
from enum import IntEnum

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid

from mmkgc_cli.ops import _losses, _native
from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops._autograd import register

NAME = "entropy_weighted_loss"
_CHECKS = Checks(NAME)


class NegativeReduction(IntEnum):
    """How the negatives of a row are reduced; the values are part of the schema."""

    mean = 0
    sum = 1
    self_adversarial = 2


@functools.cache
def entropy_cut(bits: float) -> float:
    """The |s| above which the binary entropy of sigmoid(s) is below `bits`.

    Entropy is even in s and decreases with |s|, so a threshold on entropy is a threshold on |s|,
    which needs no logarithm and cannot overflow: infinity at 0 bits, 0 from 1 bit on.
    """
    if math.isnan(bits):
        raise RuntimeError(f"{NAME}: thresholds must not be NaN")
    if bits <= 0:
        return math.inf
    if bits >= 1:
        return 0.0

    def entropy(s: float) -> float:
        # -p log p - (1 - p) log (1 - p) with p = sigmoid(-s): log(1 + e^-s) + s p.
        a = math.exp(-s)
        return (math.log1p(a) + s * a / (1 + a)) / math.log(2)

    low, high = 0.0, 750.0  # e^-750 is 0 in double precision
    while low < (middle := (low + high) / 2) < high:
        if entropy(middle) > bits:
            low = middle
        else:
            high = middle
    return high


def entropy_cuts(thresholds: tuple[float, float]) -> tuple[float, float]:
    """The cuts of both thresholds, easy_above and hard_upto.

    Raises:
        RuntimeError: when the thresholds are in the wrong order or NaN.
    """
    easy, hard = thresholds
    if easy > hard:
        raise RuntimeError(
            f"{NAME}: thresholds are {easy:g} and {hard:g} bits, expected the first at most the "
            "second"
        )
    return entropy_cut(easy), entropy_cut(hard)


def entropy_weighted_loss(
    positive: Tensor,
    negative: Tensor,
    mask: Tensor | None,
    thresholds: tuple[float, float],
    weights: tuple[float, float, float],
    *,
    reduction: NegativeReduction = NegativeReduction.mean,
    temperature: float = 1.0,
    one_sided: bool = False,
) -> Tensor:
    """mean_b [ -log sig(s+) - reduce_i lambda_i log sig(-s_i) ], lambda by the entropy of sig(s_i).

    With H the binary entropy in bits, a negative is easy where H < thresholds[0], ambiguous where
    thresholds[0] <= H < thresholds[1], and hard otherwise. H is small for large scores of either
    sign: a negative that the model considers true with certainty is easy as well, unless
    `one_sided`. lambda and the softmax weights are constants without gradients.

    Args:
        positive: ``[B]`` float32 or float64; scores already contain the margin.
        negative: ``[B, N]`` of the same dtype.
        mask: ``[B, N]`` bool; negatives with False are ignored, even if NaN. None keeps all.
        thresholds: two numbers of bits, the first at most the second.
        weights: lambda of easy, ambiguous and hard negatives.
        reduction: the mean over the unmasked negatives of a row, their sum, or their sum weighted
            by softmax(temperature * s).
        temperature: of that softmax.
        one_sided: treat negatives with s > 0 as hard whatever their entropy.

    Returns:
        The loss, a scalar; NaN if an unmasked score is NaN. A row without unmasked negatives has
        the term of its positive only. Without rows the loss is 0.

    Raises:
        RuntimeError: on wrong shapes, dtypes or thresholds; the message names the argument.
    """
    args = (
        positive, negative, mask, *entropy_cuts(thresholds),
        [float(weight) for weight in weights], int(reduction), float(temperature), one_sided,
    )  # fmt: skip
    if _native.has_kernel(NAME, positive.device.type):
        return _losses.apply(torch.ops.mmkgc.entropy_weighted_loss.default, *args)
    return reference(*args)


def reference(
    positive: Tensor,
    negative: Tensor,
    mask: Tensor | None,
    easy_above: float,
    hard_upto: float,
    weights: Sequence[float],
    reduction: int = NegativeReduction.mean,
    temperature: float = 1.0,
    one_sided: bool = False,
) -> Tensor:
    """`entropy_weighted_loss` in torch with autograd's gradients; the cuts are on |s|."""
    _losses.check_scores(_CHECKS, positive, negative, mask)
    _CHECKS.require(
        len(weights) == 3,
        f"weights holds {len(weights)} numbers, expected 3 (easy, ambiguous, hard)",
    )
    easy, ambiguous, hard = weights
    _losses.EntropyWeightedSettings(
        easy_above, hard_upto, easy, ambiguous, hard, reduction, temperature, one_sided
    ).check(_CHECKS)
    if mask is None:
        mask = torch.ones_like(negative, dtype=torch.bool)
    with torch.no_grad():
        size = negative.abs()
        factors = torch.full_like(negative, hard).masked_fill(size > hard_upto, ambiguous)
        factors = factors.masked_fill(size > easy_above, easy)
        if one_sided:
            factors = factors.masked_fill(negative > 0, hard)
        if reduction == NegativeReduction.self_adversarial:
            factors = factors * _losses.adversarial_weights(negative, mask, temperature)
        elif reduction == NegativeReduction.mean:
            factors = factors / mask.sum(1, keepdim=True).clamp_min(1)
        factors = factors.masked_fill(~mask, 0)
    # Scores are masked as well: 0 times the gradient at NaN would be NaN.
    negatives = (factors * logsigmoid(-negative.masked_fill(~mask, 0))).sum(1)
    return -_losses.mean_of_rows(logsigmoid(positive) + negatives)


register(NAME, {"": _losses.fake})
