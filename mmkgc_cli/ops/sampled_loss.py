"""A loss of sampled candidates: scores, loss and gradients of the queries in one pass.

The candidates of a positive are gathered once and stay in the cache from their scores to the
gradient of their query. The gradient of the table is left to the optimizer (`ops.deferred`);
without an optimizer that takes it, `sampled_score` and the loss run one after the other.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial
from typing import Any

from torch import Tensor

from mmkgc_cli.ops import _fused_loss
from mmkgc_cli.ops._arguments import Checks, flat_pairs
from mmkgc_cli.ops._autograd import deferring, first_order, register
from mmkgc_cli.ops.deferred import DeferredGradient, deferred_gradients
from mmkgc_cli.ops.metric import Metric, Pair
from mmkgc_cli.ops.row_loss import RowLoss, loss_of_scores
from mmkgc_cli.ops.sampled_score import reference as reference_scores
from mmkgc_cli.ops.sampled_score import sampled_score

NAME = "sampled_loss"
_CHECKS = Checks(NAME)


def sampled_loss(
    queries: Tensor,
    table: Tensor,
    ids: Tensor,
    corrupted_side: Tensor,
    metric: Metric,
    pairs: Sequence[Pair],
    *,
    mask: Tensor | None,
    loss: RowLoss,
    offset: float = 0.0,
    order: Tensor | None = None,
) -> Tensor:
    """A loss of the scores of candidates; the first candidate of each row is the positive.

    Args:
        queries: ``[S, B, Dq]``, see `sampled_score`.
        table: ``[E, Dc]`` candidate rows.
        ids: ``[B, 1 + N]`` int64 candidate ids.
        corrupted_side: ``[B, 1 + N]`` int8, the index of each candidate's query among the S.
        metric: of all pairs.
        pairs: the terms of the score.
        mask: ``[B, 1 + N]`` bool, False for negatives to ignore; None keeps all.
        loss: of the scores.
        offset: added to every score, such as the margin of a distance.
        order: ``[B * (1 + N)]`` positions of `ids` sorted by id, for the gradient of the table.

    Returns:
        The loss, a scalar, differentiable in `queries` and `table`.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids; the message names the argument.
    """
    packed = _fused_loss.packed_loss(NAME, table, loss)
    if packed is None:
        scores = sampled_score(queries, table, ids, corrupted_side, metric, pairs, order=order)
        return loss_of_scores(loss, offset + scores, mask)
    numbers, weights = flat_pairs(pairs)
    args = (
        queries, table, ids, corrupted_side, mask, int(metric), numbers, weights, float(offset),
        *packed,
    )  # fmt: skip
    setup = partial(_setup, order=order)
    return deferring(NAME, args, deferred_gradients(table), setup, _backward)


def reference(
    queries: Tensor,
    table: Tensor,
    ids: Tensor,
    corrupted_side: Tensor,
    mask: Tensor | None,
    metric: int,
    pairs: Sequence[int],
    weights: Sequence[float],
    offset: float,
    loss: int,
    settings: Sequence[float],
) -> Tensor:
    """`sampled_loss` in torch with autograd's gradients; the arguments are those of the op."""
    args = queries, table, ids, corrupted_side, metric, pairs
    _CHECKS.sampled(*args, weights=weights)
    checked = _fused_loss.check_loss(_CHECKS, ids, mask, loss, settings)
    return _fused_loss.reference_loss(offset + reference_scores(*args, weights), mask, checked)


def _setup(
    ctx: Any, args: tuple[Any, ...], results: tuple[Tensor, ...], order: Tensor | None
) -> None:
    _, d_scores, d_queries = results
    ctx.save_for_backward(d_scores, d_queries, order, *args[:4])
    ctx.terms = args[5:8]


def _backward(ctx: Any, grad: Tensor) -> tuple[DeferredGradient, tuple[Tensor | None, ...]]:
    *gradients, order, queries, table, ids, corrupted_side = ctx.saved_tensors
    metric, pairs, weights = ctx.terms
    d_scores, d_queries = _fused_loss.scaled(grad, *gradients)
    of_table = DeferredGradient(
        d_scores, queries, ids, corrupted_side, metric, pairs, weights, order=order,
        version=table._version,
    )  # fmt: skip
    return of_table, (*first_order(NAME, (d_queries,), (grad, queries, table)), *[None] * 10)


def _fake(queries: Tensor, table: Tensor, ids: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return queries.new_empty(()), queries.new_empty(ids.shape), queries.new_empty(queries.shape)


register(NAME, {"": _fake})
