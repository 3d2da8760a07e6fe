"""Scores of sampled candidates, gathered and scored in one pass, with gradients.

The native backward pass recomputes the differences instead of keeping them, and sums the gradient
of the table entity by entity over candidates in sorted order, so that the result does not depend on
the number of threads.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops._arguments import Checks, flat_pairs
from mmkgc_cli.ops._autograd import first_order, register, score
from mmkgc_cli.ops.deferred import DeferredGradient
from mmkgc_cli.ops.metric import Metric, Pair, score_rows

NAME = "sampled_score"
_CHECKS = Checks(NAME)


def sampled_score(
    queries: Tensor,
    table: Tensor,
    ids: Tensor,
    corrupted_side: Tensor,
    metric: Metric,
    pairs: Sequence[Pair],
    *,
    scale: Tensor | None = None,
    order: Tensor | None = None,
) -> Tensor:
    """Scores candidates of each positive: dot products, or negated distances.

    Args:
        queries: ``[S, B, Dq]`` float32 or float64: one query row per side, in the order of
            `sides.Side`; S is 1 when all candidates replace the same side.
        table: ``[E, Dc]`` candidate rows of the same dtype. The CUDA kernels also accept float16
            and bfloat16; all other tensors are then float32, and so is the arithmetic.
        ids: ``[B, N]`` int64 candidate ids.
        corrupted_side: ``[B, N]`` int8, the index of each candidate's query among the S.
        metric: of all pairs.
        pairs: the terms of the score; see `Pair`.
        scale: ``[S, B, Dc]`` multiplied into the candidates, or None.
        order: ``[B * N]`` int64 positions of `ids` (row-major) sorted by id and, for equal ids, by
            position, as the samplers return it; computed in the backward pass when None.

    Returns:
        Scores ``[B, N]``, differentiable in `queries`, `table` and `scale`. The gradient of a
        distance at distance 0 is 0.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids; the message names the argument.
    """
    numbers, weights = flat_pairs(pairs)
    args = (queries, table, ids, corrupted_side, int(metric), numbers, weights, scale, order)
    return score(NAME, args, table, reference=reference, setup=_setup, backward=_deferred_backward)


def reference(
    queries: Tensor,
    table: Tensor,
    ids: Tensor,
    corrupted_side: Tensor,
    metric: int,
    pairs: Sequence[int],
    weights: Sequence[float],
    scale: Tensor | None = None,
    order: Tensor | None = None,
) -> Tensor:
    """`sampled_score` in torch with autograd's gradients; `order` is only checked."""
    terms = _CHECKS.sampled(
        queries, table, ids, corrupted_side, metric, pairs, weights=weights, scale=scale
    )
    _CHECKS.order(order, ids)
    rows = torch.nn.functional.embedding(ids, table)
    batch = torch.arange(ids.shape[0], device=ids.device)[:, None]
    position = corrupted_side.long() * queries.shape[1] + batch

    def of_candidates(by_side: Tensor) -> Tensor:
        return torch.nn.functional.embedding(position, by_side.reshape(-1, by_side.shape[-1]))

    scales = None if scale is None else of_candidates(scale)
    return score_rows(of_candidates(queries), rows, Metric(metric), terms, scales)


def _fake(queries: Tensor, table: Tensor, ids: Tensor, *_: Any) -> Tensor:
    return queries.new_empty(ids.shape)


def _fake_backward(
    grad: Tensor, queries: Tensor, table: Tensor, *rest: Any
) -> tuple[Tensor, Tensor, Tensor]:
    d_queries, d_scale = _fake_backward_queries(grad, queries, table, *rest)
    return d_queries, table.new_empty(table.shape), d_scale


def _fake_backward_queries(
    grad: Tensor, queries: Tensor, table: Tensor, *rest: Any
) -> tuple[Tensor, Tensor]:
    scale = rest[5] if len(rest) > 5 else None
    return (
        queries.new_empty(queries.shape),
        queries.new_empty(0) if scale is None else scale.new_empty(scale.shape),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    queries, table, ids, corrupted_side, metric, pairs, weights, scale, order = inputs
    ctx.save_for_backward(queries, table, ids, corrupted_side, scale, order)
    ctx.terms = metric, pairs, weights


def _backward_arguments(ctx: Any, grad: Tensor) -> tuple[Any, ...]:
    queries, table, ids, corrupted_side, scale, order = ctx.saved_tensors
    return grad, queries, table, ids, corrupted_side, *ctx.terms, scale, order


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    args, scale = _backward_arguments(ctx, grad), ctx.saved_tensors[4]
    d_table = None
    if ctx.needs_input_grad[1]:
        d_queries, d_table, d_scale = torch.ops.mmkgc.sampled_score_backward(*args)
    else:
        d_queries, d_scale = torch.ops.mmkgc.sampled_score_backward_queries(*args)
    d_scale = None if scale is None else d_scale
    gradients = first_order(NAME, (d_queries, d_table, d_scale), (grad, *ctx.saved_tensors))
    return *gradients[:2], *[None] * 5, gradients[2], None


def _deferred_backward(
    ctx: Any, grad: Tensor
) -> tuple[DeferredGradient, tuple[Tensor | None, ...]]:
    queries, table, ids, corrupted_side, scale, order = ctx.saved_tensors
    metric, pairs, weights = ctx.terms
    of_table = DeferredGradient(
        grad.detach(), queries, ids, corrupted_side, metric, pairs, weights, scale, order,
        version=table._version,
    )  # fmt: skip
    args = _backward_arguments(ctx, grad)
    d_queries, d_scale = torch.ops.mmkgc.sampled_score_backward_queries(*args)
    d_scale = None if scale is None else d_scale
    gradients = first_order(NAME, (d_queries, d_scale), (grad, *ctx.saved_tensors))
    return of_table, (gradients[0], *[None] * 6, gradients[1], None)


register(
    NAME,
    {"": _fake, "_backward": _fake_backward, "_backward_queries": _fake_backward_queries},
    _backward,
    _setup,
)
