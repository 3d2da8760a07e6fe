"""The loss of a training, an `ops.RowLoss`, from its settings."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmkgc_cli.ops import (
    AdversarialForm,
    EntropyWeighted,
    NegativeReduction,
    RowLoss,
    SelfAdversarial,
)
from mmkgc_cli.training.settings import (
    BceLoss,
    EntropyWeightedLoss,
    LossSettings,
    MarginLoss,
    SelfAdversarialLoss,
    SoftmaxLoss,
)


@dataclass(frozen=True)
class Softmax:
    """Cross-entropy of the positive among itself and its unmasked negatives."""

    @property
    def native(self) -> None:
        """See `RowLoss`."""

    def __call__(self, positive: Tensor, negative: Tensor, mask: Tensor | None) -> Tensor:
        """mean_b [ log(e^s+ + sum_i e^s_i) - s+ ]; 0 for an empty batch."""
        if mask is not None:
            negative = negative.masked_fill(~mask, -torch.inf)
        all_scores = torch.cat([positive[:, None], negative], 1)
        return (all_scores.logsumexp(1) - positive).sum() / max(1, len(positive))


def make_loss(settings: LossSettings) -> RowLoss:
    """Builds the loss of `settings`.

    ``bce`` is the entropy-weighted loss with equal weights: the positive has weight 1, and
    `reduction` reduces the terms of its negatives.
    """
    if isinstance(settings, SelfAdversarialLoss):
        return SelfAdversarial(settings.temperature)
    if isinstance(settings, MarginLoss):
        form = AdversarialForm[settings.name.replace("-", "_")]
        return SelfAdversarial(settings.temperature, form, settings.margin)
    if isinstance(settings, SoftmaxLoss):
        return Softmax()
    assert isinstance(settings, EntropyWeightedLoss | BceLoss)
    reduction = NegativeReduction[settings.reduction.replace("-", "_")]
    temperature = 1.0 if settings.temperature is None else settings.temperature
    if isinstance(settings, BceLoss):
        return EntropyWeighted(
            thresholds=(0.0, 0.0),  # without effect when all weights are equal
            weights=(1.0, 1.0, 1.0),
            reduction=reduction,
            temperature=temperature,
        )
    easy, ambiguous, hard = settings.weights
    return EntropyWeighted(
        thresholds=(settings.thresholds[0], settings.thresholds[1]),
        weights=(easy, ambiguous, hard),
        reduction=reduction,
        temperature=temperature,
        one_sided=settings.one_sided,
    )
