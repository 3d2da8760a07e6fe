"""Losses by name: which value of `ops.RowLoss` a training uses."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from mmkgc_cli.errors import DataError
from mmkgc_cli.ops import (
    AdversarialForm,
    EntropyWeighted,
    NegativeReduction,
    RowLoss,
    SelfAdversarial,
)

LossName = Literal[
    "self-adversarial", "margin-inside", "margin-outside", "entropy-weighted", "bce", "softmax"
]
ReductionName = Literal["mean", "sum", "self-adversarial"]


@dataclass(frozen=True)
class LossSettings:
    """See `TrainingConfig` for the meaning of the fields."""

    loss: LossName = "self-adversarial"
    temperature: float = 1.0
    margin: float = 1.0
    reduction: ReductionName = "mean"
    thresholds: tuple[float, float] = (0.2, 0.8)
    weights: tuple[float, float, float] = (0.5, 1.5, 1.2)
    one_sided: bool = False

    def __post_init__(self) -> None:
        """Refuses a bucket that would be upside down, by its thresholds or its weight."""
        easy, hard = self.thresholds
        if easy > hard:
            raise DataError(
                f"training.entropy_thresholds: {easy:g} is above {hard:g}; expected the bits below "
                "which a negative is easy, then those from which it is hard"
            )
        if min(self.weights) < 0:
            raise DataError(
                f"training.entropy_weights: got {min(self.weights):g}; expected weights of easy, "
                "ambiguous and hard negatives, none below 0, which would draw negatives near"
            )


@dataclass(frozen=True)
class Softmax:
    """Cross-entropy of the positive among itself and its usable negatives."""

    @property
    def native(self) -> None:
        """See `RowLoss`."""

    def __call__(self, positive: Tensor, negative: Tensor, usable: Tensor | None) -> Tensor:
        """mean_b [ log(e^s+ + sum_i e^s_i) - s+ ]; 0 without rows."""
        if usable is not None:
            negative = negative.masked_fill(~usable, -torch.inf)
        all_scores = torch.cat([positive[:, None], negative], 1)
        return (all_scores.logsumexp(1) - positive).sum() / max(1, len(positive))


def make_loss(settings: LossSettings) -> RowLoss:
    """The loss that the settings name.

    ``bce`` is binary cross-entropy with the positive at weight 1 and its negatives as `reduction`
    has them: the entropy-weighted loss with equal weights.
    """
    reduction = NegativeReduction[settings.reduction.replace("-", "_")]
    if settings.loss == "self-adversarial":
        return SelfAdversarial(settings.temperature)
    if settings.loss == "margin-inside":
        return SelfAdversarial(settings.temperature, AdversarialForm.margin_inside, settings.margin)
    if settings.loss == "margin-outside":
        return SelfAdversarial(
            settings.temperature, AdversarialForm.margin_outside, settings.margin
        )
    if settings.loss == "softmax":
        return Softmax()
    equal = settings.loss == "bce"
    return EntropyWeighted(
        thresholds=settings.thresholds,
        weights=(1.0, 1.0, 1.0) if equal else settings.weights,
        reduction=reduction,
        temperature=settings.temperature,
        one_sided=settings.one_sided and not equal,
    )
