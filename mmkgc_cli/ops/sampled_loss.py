"""A loss of sampled candidates' scores: scores, loss and gradients of the queries in one pass.

The candidates of a positive are gathered once and stay in the cache from their scores to the
gradient of their query. The gradient of the table is left to the optimizer (`ops.deferred`); where
nobody takes it, `sampled_score` and the loss run one after the other.
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
from mmkgc_cli.ops.metric import Metric, Pair
from mmkgc_cli.ops.row_loss import RowLoss, loss_of_scores
from mmkgc_cli.ops.sampled_score import reference as score_reference
from mmkgc_cli.ops.sampled_score import sampled_score

NAME = "sampled_loss"
_CHECKS = Checks(NAME)


def sampled_loss(
    queries: Tensor,
    table: Tensor,
    ids: Tensor,
    side: Tensor,
    usable: Tensor | None,
    metric: Metric,
    pairs: Sequence[Pair],
    loss: RowLoss,
    offset: float = 0.0,
    order: Tensor | None = None,
) -> Tensor:
    """The loss of the scores of candidates, of which the first of each row is the positive.

    Args:
        queries: ``[S, B, Dq]``, see `sampled_score`.
        table: ``[E, Dc]`` candidate rows.
        ids: ``[B, 1 + N]`` int64 candidate ids.
        side: ``[B, 1 + N]`` int8, which of the S queries each candidate meets.
        usable: ``[B, 1 + N]`` bool; negatives that are not have no part. None: all are.
        metric: of all pairs.
        pairs: terms of the score.
        loss: of the scores.
        offset: added to every score, as the margin of a distance.
        order: ``[B * (1 + N)]`` positions of `ids` sorted by id, for the gradient of the table.

    Returns:
        The loss, a scalar, differentiable in `queries` and `table`.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids, naming the argument.
    """
    if not _fused_loss.is_fused(NAME, table, loss):
        scores = sampled_score(queries, table, ids, side, metric, pairs, order=order)
        return loss_of_scores(loss, offset + scores, usable)
    numbers, weights = flat_pairs(pairs)
    assert loss.native is not None
    made: Tensor = _Fused.apply(  # type: ignore[no-untyped-call]
        deferred_gradients(table), order, queries, table, ids, side, usable, int(metric), numbers,
        weights, float(offset), *loss.native,
    )  # fmt: skip
    return made


def reference(
    queries: Tensor,
    table: Tensor,
    ids: Tensor,
    side: Tensor,
    usable: Tensor | None,
    metric: int,
    pairs: Sequence[int],
    weights: Sequence[float],
    offset: float,
    loss: int,
    settings: Sequence[float],
) -> Tensor:
    """`sampled_loss` in torch, with the arguments of the op, whose autograd makes the gradients."""
    _CHECKS.sampled(queries, table, ids, side, metric, pairs, weights, None)
    _fused_loss.check_settings(_CHECKS, ids, usable, loss, settings)
    scores = offset + score_reference(queries, table, ids, side, metric, pairs, weights)
    return _fused_loss.reference_of_scores(_CHECKS, scores, usable, loss, settings)


class _Fused(torch.autograd.Function):
    @staticmethod
    def forward(
        ctx: Any, deferred: list[Deferred] | None, order: Tensor | None, *args: Any
    ) -> Tensor:
        queries, table, ids, side, _, metric, pairs, weights, *_ = args
        loss, d_scores, d_queries = torch.ops.mmkgc.sampled_loss(*args)
        ctx.save_for_backward(d_scores, d_queries, queries, table, ids, side, order)
        ctx.terms = metric, pairs, weights
        ctx.deferred = deferred
        made: Tensor = loss
        return made

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        d_scores, d_queries, queries, table, ids, side, order = ctx.saved_tensors
        metric, pairs, weights = ctx.terms
        d_scores, d_queries = _fused_loss.scaled(grad, d_scores, d_queries)
        _fused_loss.defer(
            ctx.deferred,
            DeferredGradient(
                d_scores, queries, ids, side, metric, pairs, weights, order=order,
                version=table._version,
            ),
        )  # fmt: skip
        made = first_order(NAME, (d_queries,), (grad, queries, table))
        return None, None, *made, *[None] * 10


def _fake(queries: Tensor, table: Tensor, ids: Tensor, *_: Any) -> tuple[Tensor, Tensor, Tensor]:
    return queries.new_empty(()), queries.new_empty(ids.shape), queries.new_empty(queries.shape)


if _native.library().loaded:
    # Differentiable through the function around it.
    torch.library.register_fake(f"mmkgc::{NAME}")(_fake)
