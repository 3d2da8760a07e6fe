"""Losses over one positive and N negatives per row, as values that ops can read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from mmkgc_cli.ops import _losses
from mmkgc_cli.ops.entropy_weighted_loss import (
    NegativeReduction,
    entropy_cuts,
    entropy_weighted_loss,
)
from mmkgc_cli.ops.self_adversarial_loss import AdversarialForm, self_adversarial_loss


class RowLoss(Protocol):
    """A mean over positives of a function of the scores of a positive and its negatives."""

    def __call__(self, positive: Tensor, negative: Tensor, mask: Tensor | None, /) -> Tensor:
        """The loss of scores ``[B]`` and ``[B, N]``; negatives with a False `mask` are ignored."""

    @property
    def native(self) -> tuple[int, list[float]] | None:
        """`loss` and `settings` of the schemas; None for a loss without native kernels."""


def loss_of_scores(loss: RowLoss, scores: Tensor, mask: Tensor | None) -> Tensor:
    """The loss of scores ``[B, 1 + N]``, the positives first; `mask` has the same shape."""
    return loss(scores[:, 0], scores[:, 1:], None if mask is None else mask[:, 1:])


@dataclass(frozen=True)
class SelfAdversarial:
    """`self_adversarial_loss` with its settings."""

    temperature: float = 1.0
    form: AdversarialForm = AdversarialForm.log_sigmoid
    margin: float = 0.0

    def __call__(self, positive: Tensor, negative: Tensor, mask: Tensor | None) -> Tensor:
        """See `RowLoss`."""
        return self_adversarial_loss(
            positive, negative, mask, self.temperature, form=self.form, margin=self.margin
        )

    @property
    def native(self) -> tuple[int, list[float]]:
        """See `RowLoss`."""
        settings = _losses.SelfAdversarialSettings(self.temperature, self.form, self.margin)
        return _losses.pack(settings)


@dataclass(frozen=True)
class EntropyWeighted:
    """`entropy_weighted_loss` with its settings."""

    thresholds: tuple[float, float]
    weights: tuple[float, float, float]
    reduction: NegativeReduction = NegativeReduction.mean
    temperature: float = 1.0
    one_sided: bool = False

    def __call__(self, positive: Tensor, negative: Tensor, mask: Tensor | None) -> Tensor:
        """See `RowLoss`."""
        return entropy_weighted_loss(
            positive, negative, mask, self.thresholds, self.weights, reduction=self.reduction,
            temperature=self.temperature, one_sided=self.one_sided,
        )  # fmt: skip

    @property
    def native(self) -> tuple[int, list[float]]:
        """See `RowLoss`."""
        settings = _losses.EntropyWeightedSettings(
            *entropy_cuts(self.thresholds), *self.weights, self.reduction, self.temperature,
            self.one_sided,
        )  # fmt: skip
        return _losses.pack(settings)
