"""Deferred gradients: gradients of tables that the scoring ops leave to an optimizer.

The gradient of an entity table is as large as the table, and writing and reading it takes a
noticeable part of a training step. An optimizer may set the attribute `deferred_gradients` of a
parameter, a list, around forward and backward. The parameter then gets no gradient: the scoring ops
append a `DeferredGradient` to the list instead, and the optimizer passes it to `table_adam`, which
computes the gradient of each row and steps the row in one pass. `lookup` does the same for rows
read from a table, such as those of the queries.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native


@dataclass(frozen=True)
class DeferredGradient:
    """The arguments from which the gradient of a table through sampled scores is computed.

    They are those of `sampled_score` in the form of its schema; `grad` ``[B, N]``, the gradient of
    the scores; and `extra` ``[n, Dc]``, additional gradient rows of the entities `extra_ids`
    ``[n]``. `version` is the version of the table when the gradient was deferred.
    """

    grad: Tensor
    queries: Tensor
    ids: Tensor
    corrupted_side: Tensor
    metric: int
    pairs: Sequence[int]
    weights: Sequence[float]
    scale: Tensor | None = None
    order: Tensor | None = None
    extra: Tensor | None = None
    extra_ids: Tensor | None = None
    version: int | None = None


@dataclass(frozen=True)
class DeferredRows:
    """Gradient rows `grad` ``[n, Dc]`` of the rows `ids` ``[n]`` of a table, not yet summed."""

    grad: Tensor
    ids: Tensor
    version: int


Deferred = DeferredGradient | DeferredRows


def deferred_gradients(table: Tensor) -> list[Deferred] | None:
    """The list for deferred gradients of `table`; None if its gradient must not be deferred."""
    deferred: list[Deferred] | None = getattr(table, "deferred_gradients", None)
    if deferred is None or not (table.requires_grad and table.is_leaf and torch.is_grad_enabled()):
        return None
    return deferred if _native.has_kernel("table_adam", table.device.type) else None


def lookup(table: Tensor, ids: Tensor | None) -> Tensor:
    """Rows ``[*ids.shape, D]`` of `table` [E, D] as by `embedding` of torch; all when None.

    If an optimizer defers the gradient of the table, the gradient of these rows is deferred too, so
    that no gradient as large as the table is written.
    """
    if ids is None:
        return table
    deferred = deferred_gradients(table)
    if deferred is None:
        return torch.nn.functional.embedding(ids, table)
    rows: Tensor = _Lookup.apply(deferred, table, ids)  # type: ignore[no-untyped-call]
    return rows


class _Lookup(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, deferred: list[Deferred], table: Tensor, ids: Tensor) -> Tensor:
        ctx.save_for_backward(ids)
        ctx.deferred, ctx.version = deferred, table._version
        return torch.nn.functional.embedding(ids, table)

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[None, None, None]:
        if torch.is_grad_enabled():
            raise RuntimeError("lookup has no second derivatives while gradients are deferred")
        (ids,) = ctx.saved_tensors
        rows = grads[0].detach().reshape(-1, grads[0].shape[-1])
        ctx.deferred.append(DeferredRows(rows, ids.reshape(-1), ctx.version))
        return None, None, None
