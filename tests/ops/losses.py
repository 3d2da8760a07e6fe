"""Losses and their scores for the tests of both losses."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from mmkgc_cli.ops import (
    AdversarialForm,
    NegativeReduction,
    entropy_cut,
    entropy_weighted_loss,
    self_adversarial_loss,
)
from mmkgc_cli.ops.entropy_weighted_loss import reference as entropy_reference
from mmkgc_cli.ops.self_adversarial_loss import reference as adversarial_reference

THRESHOLDS, WEIGHTS = (0.2, 0.8), (0.5, 1.5, 1.2)


class Loss(NamedTuple):
    """A loss with settings, called with (positive, negative, mask), and its reference."""

    ours: Callable[..., Tensor]
    reference: Callable[..., Tensor]


def adversarial(form: AdversarialForm, temperature: float = 1.3, margin: float = 2.0) -> Loss:
    settings = {"temperature": temperature, "form": form, "margin": margin}
    return Loss(
        partial(self_adversarial_loss, **settings),  # type: ignore[arg-type]
        partial(adversarial_reference, **settings),  # type: ignore[arg-type]
    )


def entropic(reduction: NegativeReduction, one_sided: bool = False) -> Loss:
    shared = {
        "weights": WEIGHTS,
        "reduction": reduction,
        "temperature": 0.7,
        "one_sided": one_sided,
    }
    easy_above, hard_upto = (entropy_cut(bits) for bits in THRESHOLDS)
    return Loss(
        partial(entropy_weighted_loss, thresholds=THRESHOLDS, **shared),  # type: ignore[arg-type]
        partial(entropy_reference, easy_above=easy_above, hard_upto=hard_upto, **shared),  # type: ignore[arg-type]
    )


LOSSES = {
    **{form.name: adversarial(form) for form in AdversarialForm},
    "adversarial, temperature 0": adversarial(AdversarialForm.log_sigmoid, 0.0),
    **{f"entropy, {kind.name}": entropic(kind) for kind in NegativeReduction},
    "entropy, one-sided": entropic(NegativeReduction.mean, one_sided=True),
}


def problem(
    batch: int = 6,
    n: int = 9,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    kept: float = 0.8,
) -> tuple[Tensor, Tensor, Tensor]:
    """Scores on both sides of all cuts, with some negatives masked."""
    rng = torch.Generator().manual_seed(seed)
    positive = 2 * torch.randn(batch, generator=rng, dtype=dtype)
    negative = 3 * torch.randn(batch, n, generator=rng, dtype=dtype)
    mask = torch.rand(batch, n, generator=rng) < kept
    return positive.requires_grad_(), negative.requires_grad_(), mask


def with_gradients(loss: Tensor, scores: Sequence[Tensor]) -> tuple[Tensor, ...]:
    """The loss and its gradients."""
    return (loss.detach(), *torch.autograd.grad(loss, scores))
