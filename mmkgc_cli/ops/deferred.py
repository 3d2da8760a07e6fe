"""Gradients of tables that the scoring ops leave to an optimizer.

The gradient of a table of entities is as large as the table: writing it out and reading it again
costs a part of a training step. While a parameter has an attribute `deferred_gradients` (an
optimizer sets it around forward and backward) it gets, in place of a gradient, what one can be made
from: `sampled_score` and `rotate_score` append a `DeferredGradient` to that list, and the optimizer
hands it to `table_adam`, which makes each row's gradient and steps the row at once.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from mmkgc_cli.ops import _native


@dataclass(frozen=True)
class DeferredGradient:
    """The gradient of a table through the scores of sampled candidates, not yet made.

    The arguments of `sampled_score` in the form of its schema; `grad` ``[B, N]``, the gradient of
    the scores; and `extra` ``[n, Dc]``, further gradient rows of the entities `extra_ids` ``[n]``.
    `version` is that of the table when the gradient was deferred.
    """

    grad: Tensor
    queries: Tensor
    ids: Tensor
    side: Tensor
    metric: int
    pairs: Sequence[int]
    weights: Sequence[float]
    scale: Tensor | None = None
    order: Tensor | None = None
    extra: Tensor | None = None
    extra_ids: Tensor | None = None
    version: int | None = None


def deferred_gradients(table: Tensor) -> list[DeferredGradient] | None:
    """Where to leave the gradient of `table`; None where it is to be made at once."""
    wanted: list[DeferredGradient] | None = getattr(table, "deferred_gradients", None)
    if wanted is None or not (table.requires_grad and table.is_leaf and torch.is_grad_enabled()):
        return None
    return wanted if _native.has_kernel("table_adam", table.device.type) else None
