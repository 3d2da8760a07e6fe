"""What the ops share that score candidates and end in a loss."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmkgc_cli.ops import _losses, _native
from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops.deferred import Deferred, DeferredGradient, deferred_gradients
from mmkgc_cli.ops.entropy_weighted_loss import reference as entropy_weighted
from mmkgc_cli.ops.row_loss import RowLoss
from mmkgc_cli.ops.self_adversarial_loss import reference as self_adversarial


def is_fused(op: str, table: Tensor, loss: RowLoss) -> bool:
    """Whether `op` may run: it makes no gradient of the table, which is left to the optimizer."""
    if loss.native is None or not _native.has_kernel(op, table.device.type):
        return False
    return not table.requires_grad or deferred_gradients(table) is not None


def reference_of_scores(
    checks: Checks, scores: Tensor, usable: Tensor | None, kind: int, settings: Sequence[float]
) -> Tensor:
    """The same in torch, by kind and numbers."""
    check_settings(checks, scores, usable, kind, settings)
    negatives = None if usable is None else usable[:, 1:]
    if kind == 0:
        temperature, form, margin = settings
        return self_adversarial(
            scores[:, 0], scores[:, 1:], negatives, temperature, int(form), margin
        )
    easy_above, hard_upto, *weights = settings[:5]
    reduction, temperature, one_sided = settings[5:]
    return entropy_weighted(
        scores[:, 0], scores[:, 1:], negatives, easy_above, hard_upto, weights, int(reduction),
        temperature, bool(one_sided),
    )  # fmt: skip


def check_settings(
    checks: Checks, ids: Tensor, usable: Tensor | None, kind: int, settings: Sequence[float]
) -> None:
    """The checks of ``checks/loss_settings.h``, word for word (a test compares them)."""
    checks.require(ids.shape[1] >= 1, "ids has no columns, expected the positive in the first")
    if usable is not None:
        checks.require(usable.shape == ids.shape, "usable must have the shape of ids")
        checks.require(usable.dtype == torch.bool, "usable must be bool")
    checks.require(
        kind in (0, 1), f"loss is {kind}, expected 0 (self_adversarial) or 1 (entropy_weighted)"
    )
    expected = 3 if kind == 0 else 8
    checks.require(
        len(settings) == expected,
        f"settings holds {len(settings)} numbers, expected {expected}",
    )
    if kind == 0:
        _losses.check_form(checks, settings[1])
    else:
        _losses.check_cuts(checks, settings[0], settings[1])
        _losses.check_reduction(checks, settings[5])


def scaled(grad: Tensor, *gradients: Tensor) -> tuple[Tensor, ...]:
    """Gradients times that of the loss, which nearly always is 1."""
    if grad.device.type == "cpu" and not torch.is_grad_enabled() and grad.item() == 1:
        return gradients
    return tuple(g * grad for g in gradients)


def defer(deferred: list[Deferred] | None, gradient: DeferredGradient) -> None:
    """Leaves the gradient of the table to the optimizer, if it wants one."""
    if deferred is not None:
        deferred.append(gradient)
