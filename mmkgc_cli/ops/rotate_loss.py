"""A loss of RotatE's scores, computed from the two tables, with gradients in the same pass.

This is `sampled_loss` for the scores of `rotate_score`: candidates are gathered once, and the
gradient of the entity table is left to the optimizer.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from mmkgc_cli.ops import _fused_loss
from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops._autograd import deferring, first_order, register
from mmkgc_cli.ops.deferred import DeferredGradient, deferred_gradients
from mmkgc_cli.ops.rotate_score import check_arguments, deferred_gradient, rotate_score
from mmkgc_cli.ops.rotate_score import reference as reference_scores
from mmkgc_cli.ops.row_loss import RowLoss, loss_of_scores

NAME = "rotate_loss"
_CHECKS = Checks(NAME)


def rotate_loss(
    table: Tensor,
    phases: Tensor,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    *,
    ids: Tensor,
    corrupted_side: Tensor,
    mask: Tensor | None,
    loss: RowLoss,
    offset: float = 0.0,
    order: Tensor | None = None,
) -> Tensor:
    """A loss of the scores of candidates; the first candidate of each row is the positive.

    Args:
        table: ``[E, 2 d]`` entities, see `rotate_score`.
        phases: ``[R, d]`` angles of the relations.
        heads: ``[B]`` int64.
        relations: ``[B]`` int64.
        tails: ``[B]`` int64.
        ids: ``[B, 1 + N]`` int64 candidates.
        corrupted_side: ``[B, 1 + N]`` int8 (`sides.Side`): 0 replaces the tail, 1 the head.
        mask: ``[B, 1 + N]`` bool, False for negatives to ignore; None keeps all.
        loss: of the scores.
        offset: the margin, added to every score.
        order: ``[B * (1 + N)]`` positions of `ids` sorted by id, for the gradient of the table.

    Returns:
        The loss, a scalar, differentiable in `table` and `phases`.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids; the message names the argument.
    """
    packed = _fused_loss.packed_loss(NAME, table, loss)
    if packed is None:
        scores = offset + rotate_score(
            table, phases, heads, relations, tails, ids=ids, corrupted_side=corrupted_side,
            order=order,
        )  # fmt: skip
        return loss_of_scores(loss, scores, mask)
    args = (
        table, phases, heads, relations, tails, ids, corrupted_side, mask, float(offset), *packed,
    )  # fmt: skip
    setup = partial(_setup, order=order)
    return deferring(NAME, args, deferred_gradients(table), setup, _backward)


def reference(
    table: Tensor,
    phases: Tensor,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    ids: Tensor,
    corrupted_side: Tensor,
    mask: Tensor | None,
    offset: float,
    loss: int,
    settings: Sequence[float],
) -> Tensor:
    """`rotate_loss` in torch with autograd's gradients; the arguments are those of the op."""
    args = table, phases, heads, relations, tails, ids, corrupted_side
    check_arguments(_CHECKS, *args)
    checked = _fused_loss.check_loss(_CHECKS, ids, mask, loss, settings)
    return _fused_loss.reference_loss(offset + reference_scores(*args), mask, checked)


def _setup(
    ctx: Any, args: tuple[Any, ...], results: tuple[Tensor, ...], order: Tensor | None
) -> None:
    _, d_scores, queries, d_known, d_phases = results
    ctx.save_for_backward(d_scores, d_known, d_phases, queries, order, *args[:7])


def _backward(ctx: Any, grad: Tensor) -> tuple[DeferredGradient, tuple[Tensor | None, ...]]:
    *gradients, queries, order, table, phases = ctx.saved_tensors[:7]
    d_scores, d_known, d_phases = _fused_loss.scaled(grad, *gradients)
    of_table = deferred_gradient(d_scores, queries, d_known, ctx.saved_tensors[5:], order)
    return of_table, (None, *first_order(NAME, (d_phases,), (grad, table, phases)), *[None] * 9)


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


register(NAME, {"": _fake})
