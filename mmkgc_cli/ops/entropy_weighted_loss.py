"""A log-sigmoid loss whose negatives weigh by how sure the model is of them (MoCME's EGNS)."""

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

NAME = "entropy_weighted_loss"
_CHECKS = Checks(NAME)


class NegativeReduction(IntEnum):
    """How the negatives of a row add up; values as in the op's schema."""

    mean = 0
    sum = 1
    self_adversarial = 2


@functools.cache
def entropy_cut(bits: float) -> float:
    """The |s| above which the binary entropy of sigmoid(s) is below `bits`.

    Entropy is even in s and falls as |s| grows, so a threshold on it is one on |s|, which needs no
    logarithm and cannot overflow: infinity at 0 bits, 0 from 1 bit on.
    """
    if math.isnan(bits):
        raise RuntimeError(f"{NAME}: a threshold is NaN")
    if bits <= 0:
        return math.inf
    if bits >= 1:
        return 0.0

    def entropy(s: float) -> float:
        # -p log p - (1 - p) log (1 - p) with p = sigmoid(-s): log(1 + e^-s) + s p.
        a = math.exp(-s)
        return (math.log1p(a) + s * a / (1 + a)) / math.log(2)

    low, high = 0.0, 750.0  # where e^-s is 0 in double precision
    while low < (middle := (low + high) / 2) < high:
        if entropy(middle) > bits:
            low = middle
        else:
            high = middle
    return high


def entropy_cuts(thresholds: tuple[float, float]) -> tuple[float, float]:
    """The cuts of both thresholds, easy_above and hard_upto.

    Raises:
        RuntimeError: when the thresholds are in the wrong order, or NaN.
    """
    easy, hard = thresholds
    if easy > hard:
        raise RuntimeError(
            f"{NAME}: thresholds are {easy:g} and {hard:g} bits, expected the first no larger"
        )
    return entropy_cut(easy), entropy_cut(hard)


def entropy_weighted_loss(
    positive: Tensor,
    negative: Tensor,
    usable: Tensor | None,
    thresholds: tuple[float, float],
    weights: tuple[float, float, float],
    reduction: NegativeReduction = NegativeReduction.mean,
    temperature: float = 1.0,
    one_sided: bool = False,
) -> Tensor:
    """mean_b [ -log sig(s+) - reduce_i lambda_i log sig(-s_i) ], lambda by the entropy of sig(s_i).

    With H the binary entropy in bits, a negative is easy where H < thresholds[0], ambiguous where
    thresholds[0] <= H < thresholds[1], and hard otherwise. H is small on both sides: a negative
    that the model is sure is true is easy as well, unless `one_sided`. lambda and softmax weights
    are constants: no gradient goes through them.

    Args:
        positive: ``[B]`` float32 or float64; scores already contain the margin.
        negative: ``[B, N]`` of the same dtype.
        usable: ``[B, N]`` bool; the others have no part, whatever they are. None: all are.
        thresholds: two numbers of bits, the first no larger.
        weights: lambda of easy, ambiguous and hard negatives.
        reduction: the mean over the usable negatives of a row, their sum, or a sum weighted by
            softmax(temperature * s) over them.
        temperature: of that softmax.
        one_sided: count a negative with s > 0 as hard whatever its entropy.

    Returns:
        The loss, a scalar; NaN if a score that counts is NaN. A row without usable negatives
        leaves its positive. Without rows the loss is 0.

    Raises:
        RuntimeError: on wrong shapes, dtypes or thresholds, naming the argument.
    """
    args = (
        positive, negative, usable, *entropy_cuts(thresholds),
        [float(weight) for weight in weights], int(reduction), float(temperature), one_sided,
    )  # fmt: skip
    if _native.has_kernel(NAME, positive.device.type):
        return _losses.apply(torch.ops.mmkgc.entropy_weighted_loss.default, *args)
    return reference(*args)


def _check_arguments(
    positive: Tensor,
    negative: Tensor,
    usable: Tensor | None,
    easy_above: float,
    hard_upto: float,
    weights: Sequence[float],
    reduction: int,
) -> None:
    """The checks of ``checks/entropy_weighted_arguments.h``, word for word; a test compares."""
    c = _CHECKS
    c.loss_scores(positive, negative, usable)
    _losses.check_cuts(c, easy_above, hard_upto)
    c.require(
        len(weights) == 3,
        f"weights holds {len(weights)} numbers, expected 3 (easy, ambiguous, hard)",
    )
    _losses.check_reduction(c, reduction)


def reference(
    positive: Tensor,
    negative: Tensor,
    usable: Tensor | None,
    easy_above: float,
    hard_upto: float,
    weights: Sequence[float],
    reduction: int = NegativeReduction.mean,
    temperature: float = 1.0,
    one_sided: bool = False,
) -> Tensor:
    """`entropy_weighted_loss` in torch, whose autograd makes the gradients; cuts are on |s|."""
    _check_arguments(positive, negative, usable, easy_above, hard_upto, weights, reduction)
    if usable is None:
        usable = torch.ones_like(negative, dtype=torch.bool)
    easy, ambiguous, hard = weights
    with torch.no_grad():
        size = negative.abs()
        factors = torch.full_like(negative, hard).masked_fill(size > hard_upto, ambiguous)
        factors = factors.masked_fill(size > easy_above, easy)
        if one_sided:
            factors = factors.masked_fill(negative > 0, hard)
        if reduction == NegativeReduction.self_adversarial:
            factors = factors * _losses.adversarial_weights(negative, usable, temperature)
        elif reduction == NegativeReduction.mean:
            factors = factors / usable.sum(1, keepdim=True).clamp_min(1)
        factors = factors.masked_fill(~usable, 0)
    # Masked before as well: 0 times the gradient at NaN would be NaN.
    negatives = (factors * logsigmoid(-negative.masked_fill(~usable, 0))).sum(1)
    return -_losses.mean_of_rows(logsigmoid(positive) + negatives)


if _native.library().loaded:
    torch.library.register_fake(f"mmkgc::{NAME}")(_losses.fake)
