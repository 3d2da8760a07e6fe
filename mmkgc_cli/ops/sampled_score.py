"""Scores of sampled candidates, gathered and scored in one go, with gradients.

The native backward pass makes the differences
again instead of keeping them, and sums the gradient of the table entity by entity over candidates
in sorted order: the result does not depend on the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops._arguments import Checks, flat_pairs
from mmkgc_cli.ops._autograd import first_order
from mmkgc_cli.ops.deferred import Deferred, DeferredGradient, deferred_gradients
from mmkgc_cli.ops.metric import Metric, Pair, score_rows

NAME = "sampled_score"
_CHECKS = Checks(NAME)


def sampled_score(
    queries: Tensor,
    table: Tensor,
    ids: Tensor,
    side: Tensor,
    metric: Metric,
    pairs: Sequence[Pair],
    scale: Tensor | None = None,
    order: Tensor | None = None,
) -> Tensor:
    """Scores candidates of each positive: dot products, or distances negated.

    Args:
        queries: ``[S, B, Dq]`` float32 or float64: a query row for each side, in the order of
            `sides.Side`; S is 1 when all candidates stand on one side.
        table: ``[E, Dc]`` candidate rows of the same dtype. The kernels of a GPU also take float16
            and bfloat16, beside float32 for all else, in which they compute.
        ids: ``[B, N]`` int64 candidate ids.
        side: ``[B, N]`` int8, which of the S queries each candidate meets.
        metric: of all pairs.
        pairs: terms of the score; see `Pair`.
        scale: ``[S, B, Dc]`` multiplied into the candidates, or None.
        order: ``[B * N]`` int64 positions of `ids` (row-major) sorted by id and, for equal ids, by
            position, as the sampler makes it; made in the backward pass when None.

    Returns:
        Scores ``[B, N]``, differentiable in `queries`, `table` and `scale`. The gradient of a
        distance at distance 0 is 0.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids, naming the argument.
    """
    numbers, weights = flat_pairs(pairs)
    args = (queries, table, ids, side, int(metric), numbers, weights, scale, order)
    deferred = deferred_gradients(table)
    if deferred is not None:
        deferring: Tensor = _Deferring.apply(deferred, *args)  # type: ignore[no-untyped-call]
        return deferring
    if _native.has_kernel(NAME, queries.device.type):
        result: Tensor = torch.ops.mmkgc.sampled_score(*args)
        return result
    return reference(*args)


def reference(
    queries: Tensor,
    table: Tensor,
    ids: Tensor,
    side: Tensor,
    metric: int,
    pairs: Sequence[int],
    weights: Sequence[float],
    scale: Tensor | None = None,
    order: Tensor | None = None,
) -> Tensor:
    """`sampled_score` in torch, whose autograd makes the gradients; `order` is only checked."""
    terms = _CHECKS.sampled(queries, table, ids, side, metric, pairs, weights, scale)
    _CHECKS.order(order, ids)
    rows = torch.nn.functional.embedding(ids, table)
    batch = torch.arange(ids.shape[0], device=ids.device)[:, None]
    at = side.long() * queries.shape[1] + batch

    def chosen(of: Tensor) -> Tensor:
        return torch.nn.functional.embedding(at, of.reshape(-1, of.shape[-1]))

    scales = None if scale is None else chosen(scale)
    return score_rows(chosen(queries), rows, Metric(metric), terms, scales)


class _Deferring(torch.autograd.Function):
    """The op for a table whose gradient the optimizer makes."""

    @staticmethod
    def forward(ctx: Any, deferred: list[Deferred], *args: Any) -> Tensor:
        ctx.deferred = deferred
        _setup(ctx, args, args[0])
        scores: Tensor = torch.ops.mmkgc.sampled_score(*args)
        return scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        queries, table, ids, side, scale, order = ctx.saved_tensors
        metric, pairs, weights = ctx.terms
        ctx.deferred.append(
            DeferredGradient(
                grad.detach(),
                queries,
                ids,
                side,
                metric,
                pairs,
                weights,
                scale,
                order,
                version=table._version,
            )
        )
        d_queries, d_scale = torch.ops.mmkgc.sampled_score_backward_queries(
            grad, queries, table, ids, side, *ctx.terms, scale, order
        )
        gradients = (d_queries, None if scale is None else d_scale)
        made = first_order(NAME, gradients, (grad, *ctx.saved_tensors))
        return None, made[0], *[None] * 6, made[1], None


def _fake(queries: Tensor, table: Tensor, ids: Tensor, *_: Any) -> Tensor:
    return queries.new_empty(ids.shape)


def _fake_backward(
    grad: Tensor,
    queries: Tensor,
    table: Tensor,
    ids: Tensor,
    side: Tensor,
    metric: int,
    pairs: Sequence[int],
    weights: Sequence[float],
    scale: Tensor | None = None,
    order: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        queries.new_empty(queries.shape),
        table.new_empty(table.shape),
        queries.new_empty(0) if scale is None else scale.new_empty(scale.shape),
    )


def _fake_backward_queries(
    grad: Tensor, queries: Tensor, table: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    scale = rest[5] if len(rest) > 5 else None
    return (
        queries.new_empty(queries.shape),
        queries.new_empty(0) if scale is None else scale.new_empty(scale.shape),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    queries, table, ids, side, metric, pairs, weights, scale, order = inputs
    ctx.save_for_backward(queries, table, ids, side, scale, order)
    ctx.terms = metric, pairs, weights


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    queries, table, ids, side, scale, order = ctx.saved_tensors
    args = (grad, queries, table, ids, side, *ctx.terms, scale, order)
    d_table = None
    if ctx.needs_input_grad[1]:
        d_queries, d_table, d_scale = torch.ops.mmkgc.sampled_score_backward(*args)
    else:
        d_queries, d_scale = torch.ops.mmkgc.sampled_score_backward_queries(*args)
    gradients = (d_queries, d_table, None if scale is None else d_scale)
    made = first_order(NAME, gradients, (grad, *ctx.saved_tensors))
    return *made[:2], *[None] * 5, made[2], None


if _native.library().loaded:
    torch.library.register_fake(f"mmkgc::{NAME}")(_fake)
    torch.library.register_fake(f"mmkgc::{NAME}_backward")(_fake_backward)
    torch.library.register_fake(f"mmkgc::{NAME}_backward_queries")(_fake_backward_queries)
    torch.library.register_autograd(f"mmkgc::{NAME}", _backward, setup_context=_setup)
