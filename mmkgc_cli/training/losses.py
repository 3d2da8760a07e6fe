"""Losses over one positive and N negative scores a row."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid


def self_adversarial_loss(
    positive: Tensor, negative: Tensor, usable: Tensor, temperature: float
) -> Tensor:
    """The self-adversarial log-sigmoid loss of RotatE (Sun et al. 2019, eq. 5 and 6).

    L = -1/2 mean_b [ log sig(s+) + sum_i w_i log sig(-s_i) ], w = softmax(temperature * s) over
    the usable negatives of a row, without gradient. Scores already contain the margin.

    Args:
        positive: ``[B]``.
        negative: ``[B, N]``.
        usable: ``[B, N]`` bool; the others have weight 0, and a row without any has no negatives.
        temperature: 0 weighs all usable negatives alike.

    Returns:
        The loss, a scalar.
    """
    with torch.no_grad():
        logits = (temperature * negative).masked_fill(~usable, -torch.inf)
        # A row of -inf alone would come out of the softmax as NaN; real NaN must stay.
        weights = torch.where(usable.any(1, keepdim=True), logits.softmax(1), 0)
    hardness = (weights * logsigmoid(-negative)).sum(1)
    return -0.5 * (logsigmoid(positive) + hardness).mean()
