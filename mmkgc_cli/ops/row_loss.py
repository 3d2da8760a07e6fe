"""Losses over one positive and N negatives a row, as values that ops can take apart."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

from torch import Tensor

from mmkgc_cli.ops.entropy_weighted_loss import (
    NegativeReduction,
    entropy_cuts,
    entropy_weighted_loss,
)
from mmkgc_cli.ops.self_adversarial_loss import AdversarialForm, self_adversarial_loss


class RowLoss(Protocol):
    """The mean over positives of what each makes of its own score and its negatives'."""

    def __call__(self, positive: Tensor, negative: Tensor, usable: Tensor | None) -> Tensor:
        """The loss of scores ``[B]`` and ``[B, N]``; `usable` [B, N] bool says which count."""

    @property
    def native(self) -> tuple[int, list[float]] | None:
        """Kind and numbers as the schemas take them; None: the kernels do not know it."""


def loss_of_scores(loss: RowLoss, scores: Tensor, usable: Tensor | None) -> Tensor:
    """The loss of scores ``[B, 1 + N]``, the positive first; of `usable`, if any, all columns."""
    return loss(scores[:, 0], scores[:, 1:], None if usable is None else usable[:, 1:])


@dataclass(frozen=True)
class SelfAdversarial:
    """`self_adversarial_loss` with its settings."""

    temperature: float = 1.0
    form: AdversarialForm = AdversarialForm.log_sigmoid
    margin: float = 0.0

    def __call__(self, positive: Tensor, negative: Tensor, usable: Tensor | None) -> Tensor:
        """See `RowLoss`."""
        return self_adversarial_loss(
            positive, negative, usable, self.temperature, self.form, self.margin
        )

    @property
    def native(self) -> tuple[int, list[float]]:
        """See `RowLoss`."""
        return 0, [float(self.temperature), float(self.form), float(self.margin)]


@dataclass(frozen=True)
class EntropyWeighted:
    """`entropy_weighted_loss` with its settings."""

    thresholds: tuple[float, float]
    weights: tuple[float, float, float]
    reduction: NegativeReduction = NegativeReduction.mean
    temperature: float = 1.0
    one_sided: bool = False

    def __call__(self, positive: Tensor, negative: Tensor, usable: Tensor | None) -> Tensor:
        """See `RowLoss`."""
        return entropy_weighted_loss(
            positive, negative, usable, self.thresholds, self.weights, self.reduction,
            self.temperature, self.one_sided,
        )  # fmt: skip

    @property
    def native(self) -> tuple[int, list[float]]:
        """See `RowLoss`."""
        cuts = entropy_cuts(self.thresholds)
        rest = [float(self.reduction), float(self.temperature), float(self.one_sided)]
        return 1, [*cuts, *(float(weight) for weight in self.weights), *rest]
