"""A loss of RotatE's scores straight from its two tables, with gradients in the same pass.

To `rotate_score` what `sampled_loss` is to `sampled_score`: candidates are gathered once, and the
gradient of the entity table is left to the optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _fused_loss, _native
from mmkgc_cli.ops._arguments import Checks, flat_pairs
from mmkgc_cli.ops._autograd import first_order
from mmkgc_cli.ops.deferred import Deferred, DeferredGradient, deferred_gradients
from mmkgc_cli.ops.metric import Metric, whole_row
from mmkgc_cli.ops.rotate_score import check_arguments, rotate_score
from mmkgc_cli.ops.rotate_score import reference as score_reference
from mmkgc_cli.ops.row_loss import RowLoss, loss_of_scores

NAME = "rotate_loss"
_CHECKS = Checks(NAME)


def rotate_loss(
    table: Tensor,
    phases: Tensor,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    ids: Tensor,
    side: Tensor,
    usable: Tensor | None,
    loss: RowLoss,
    offset: float = 0.0,
    order: Tensor | None = None,
) -> Tensor:
    """The loss of the scores of candidates, of which the first of each row is the positive.

    Args:
        table: ``[E, 2 d]`` entities, see `rotate_score`.
        phases: ``[R, d]`` angles of the relations.
        heads: ``[B]`` int64.
        relations: ``[B]`` int64.
        tails: ``[B]`` int64.
        ids: ``[B, 1 + N]`` int64 candidates.
        side: ``[B, 1 + N]`` int8 (`sides.Side`): 0 replaces the tail, 1 the head.
        usable: ``[B, 1 + N]`` bool; negatives that are not have no part. None: all are.
        loss: of the scores.
        offset: added to every score: the margin.
        order: ``[B * (1 + N)]`` positions of `ids` sorted by id, for the gradient of the table.

    Returns:
        The loss, a scalar, differentiable in `table` and `phases`.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids, naming the argument.
    """
    known = (table, phases, heads, relations, tails, ids, side)
    if not _fused_loss.is_fused(NAME, table, loss):
        return loss_of_scores(loss, offset + rotate_score(*known, order), usable)
    assert loss.native is not None
    made: Tensor = _Fused.apply(  # type: ignore[no-untyped-call]
        deferred_gradients(table), order, *known, usable, float(offset), *loss.native
    )
    return made


def reference(
    table: Tensor,
    phases: Tensor,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    ids: Tensor,
    side: Tensor,
    usable: Tensor | None,
    offset: float,
    loss: int,
    settings: Sequence[float],
) -> Tensor:
    """`rotate_loss` in torch, with the arguments of the op, whose autograd makes the gradients."""
    check_arguments(_CHECKS, table, phases, heads, relations, tails, ids, side)
    _fused_loss.check_settings(_CHECKS, ids, usable, loss, settings)
    scores = offset + score_reference(table, phases, heads, relations, tails, ids, side)
    return _fused_loss.reference_of_scores(_CHECKS, scores, usable, loss, settings)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, deferred: list[Deferred] | None, order: Tensor | None, *args: Any
    ) -> Tensor:
        table, phases, heads, _, tails, ids, side, *_ = args
        loss, d_scores, queries, d_known, d_phases = torch.ops.mmkgc.rotate_loss(*args)
        ctx.save_for_backward(
            d_scores, d_known, d_phases, queries, table, phases, heads, tails, ids, side, order
        )
        ctx.deferred = deferred
        made: Tensor = loss
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        *gradients, queries, table, phases, heads, tails, ids, side, order = ctx.saved_tensors
        d_scores, d_known, d_phases = _fused_loss.scaled(grad, *gradients)
        numbers, weights = flat_pairs(whole_row(table.shape[1]))
        _fused_loss.defer(
            ctx.deferred,
            DeferredGradient(
                d_scores, queries, ids, side, int(Metric.modulus), numbers, weights, order=order,
                extra=d_known, extra_ids=torch.cat([heads, tails]), version=table._version,
            ),
        )  # fmt: skip
        made = first_order(NAME, (d_phases,), (grad, table, phases))
        return None, None, None, *made, *[None] * 9


def _fake(table: Tensor, phases: Tensor, heads: Tensor, relations: Tensor, tails: Tensor,
          ids: Tensor, *_: Any) -> tuple[Tensor, ...]:  # fmt: skip
    batch, width = heads.shape[0], table.shape[1]
    return (
        table.new_empty(()),
        table.new_empty(ids.shape),
        table.new_empty(2, batch, width),
        table.new_empty(2 * batch, width),
        phases.new_empty(phases.shape),
    )


if _native.library().loaded:
    # Differentiable through the function around it.
    torch.library.register_fake(f"mmkgc::{NAME}")(_fake)
