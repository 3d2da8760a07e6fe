"""Gradients of tables that the scoring ops leave to an optimizer.

The gradient of a table of entities is as large as the table: writing it out and reading it again
costs a part of a training step. While a parameter has an attribute `deferred_gradients` (an
optimizer sets it around forward and backward) it gets, in place of a gradient, what one can be made
from: `sampled_score` and `rotate_score` append a `DeferredGradient` to that list, and the optimizer
hands it to `table_adam`, which makes each row's gradient and steps the row at once. `lookup` does
the same for rows that are read out of a table: queries are made from such.
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


@dataclass(frozen=True)
class DeferredRows:
    """Gradient rows `grad` ``[n, Dc]`` of the rows `ids` ``[n]`` of a table, not yet added up."""

    grad: Tensor
    ids: Tensor
    version: int


Deferred = DeferredGradient | DeferredRows


def deferred_gradients(table: Tensor) -> list[Deferred] | None:
    """Where to leave the gradient of `table`; None where it is to be made at once."""
    wanted: list[Deferred] | None = getattr(table, "deferred_gradients", None)
    if wanted is None or not (table.requires_grad and table.is_leaf and torch.is_grad_enabled()):
        return None
    return wanted if _native.has_kernel("table_adam", table.device.type) else None


def lookup(table: Tensor, ids: Tensor | None) -> Tensor:
    """Rows ``[*ids.shape, D]`` of `table` [E, D], as `torch.nn.functional.embedding`; None: all.

    Where an optimizer makes the gradient of the table, it gets these rows' too, and no gradient as
    large as the table is written for them.
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
