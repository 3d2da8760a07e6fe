"""Shared parts of the ops that score candidates and end in a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmkgc_cli.ops import _losses, _native
from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops.deferred import deferred_gradients
from mmkgc_cli.ops.entropy_weighted_loss import reference as entropy_weighted
from mmkgc_cli.ops.row_loss import RowLoss
from mmkgc_cli.ops.self_adversarial_loss import reference as self_adversarial


def packed_loss(op: str, table: Tensor, loss: RowLoss) -> tuple[int, list[float]] | None:
    """`loss` in the form of the schemas; None where `op` cannot compute it.

    The op returns no gradient of the table: it needs an optimizer that takes the deferred one, or
    a frozen table.
    """
    if not _native.has_kernel(op, table.device.type):
        return None
    return None if table.requires_grad and deferred_gradients(table) is None else loss.native


def check_loss(
    checks: Checks, ids: Tensor, mask: Tensor | None, loss: int, settings: Sequence[float]
) -> _losses.Settings:
    """Checks the mask and the settings; returns the settings."""
    checks.require(
        ids.shape[1] >= 1, "ids has no columns, expected the positives in the first column"
    )
    checks.mask(mask, "ids", ids)
    return _losses.unpack(checks, loss, settings)


def reference_loss(scores: Tensor, mask: Tensor | None, settings: _losses.Settings) -> Tensor:
    """The loss of scores ``[B, 1 + N]``, the positives first, in torch."""
    args = scores[:, 0], scores[:, 1:], None if mask is None else mask[:, 1:]
    if isinstance(settings, _losses.SelfAdversarialSettings):
        temperature, form, margin = settings
        return self_adversarial(*args, temperature, int(form), margin)
    s = settings
    return entropy_weighted(
        *args, s.easy_above, s.hard_upto, (s.easy, s.ambiguous, s.hard), int(s.reduction),
        s.temperature, bool(s.one_sided),
    )  # fmt: skip


def scaled(grad: Tensor, *gradients: Tensor) -> tuple[Tensor, ...]:
    """`gradients` times the gradient of the loss, which nearly always is 1."""
    if grad.device.type == "cpu" and not torch.is_grad_enabled() and grad.item() == 1:
        return gradients
    return tuple(g * grad for g in gradients)
