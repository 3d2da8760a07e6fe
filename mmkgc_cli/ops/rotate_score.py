"""RotatE's scores of sampled candidates, computed from the two tables, with gradients.

The result is that of `sampled_score` on RotatE's queries, but the rotation, its gradient and the
gradients of heads and tails are part of the two passes over the entity table.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops._arguments import Checks, flat_pairs
from mmkgc_cli.ops._autograd import first_order, register, score
from mmkgc_cli.ops.deferred import DeferredGradient
from mmkgc_cli.ops.metric import Metric, score_rows, whole_row

NAME = "rotate_score"
_CHECKS = Checks(NAME)


def rotate_score(
    table: Tensor,
    phases: Tensor,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    *,
    ids: Tensor,
    corrupted_side: Tensor,
    order: Tensor | None = None,
) -> Tensor:
    """Negated RotatE distances (Sun et al. 2019, eq. 2) of candidates, without a margin.

    Args:
        table: ``[E, 2 d]`` entities, float32 or float64, laid out [re | im]. The CUDA kernels also
            accept float16 and bfloat16; `phases` is then float32, and so is the arithmetic.
        phases: ``[R, d]`` angles of the relations, of the same dtype.
        heads: ``[B]`` int64; with `relations`, the query of candidates that replace the tail.
        relations: ``[B]`` int64.
        tails: ``[B]`` int64; with `relations`, the query of candidates that replace the head.
        ids: ``[B, N]`` int64 candidates, which may include the positives.
        corrupted_side: ``[B, N]`` int8 (`sides.Side`): 0 replaces the tail, 1 the head.
        order: ``[B * N]`` int64 positions of `ids` sorted by id; computed when None.

    Returns:
        Scores ``[B, N]``, differentiable in `table` and `phases`.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids; the message names the argument.
    """
    args = (table, phases, heads, relations, tails, ids, corrupted_side, order)
    return score(NAME, args, table, reference=reference, setup=_setup, backward=_deferred_backward)


def check_arguments(checks: Checks, *args: Tensor) -> None:
    """The checks of the schema's arguments up to `corrupted_side`."""
    table, phases, heads, relations, tails, ids, corrupted_side = args
    c = checks
    c.matrix("table", table)
    c.real("table", table)
    width = table.shape[1]
    c.require(
        width % 2 == 0,
        f"table has odd width {width}, expected an even width for complex rows [re | im]",
    )
    c.matrix("phases", phases)
    c.same_dtype("phases", phases, "table", table)
    c.require(
        2 * phases.shape[1] == width,
        f"phases has width {phases.shape[1]}, expected {width // 2} (half the width of table)",
    )
    batch = heads.shape[0] if heads.dim() else 0
    for name, known, bound in (
        ("heads", heads, table.shape[0]),
        ("relations", relations, phases.shape[0]),
        ("tails", tails, table.shape[0]),
    ):
        c.index(name, known)
        c.require(
            known.shape[0] == batch,
            f"{name} has {known.shape[0]} entries, expected {batch} (one per positive)",
        )
        c.ids(name, known, bound)
    c.candidates(ids, corrupted_side, batch, 2, table.shape[0])


def reference(
    table: Tensor,
    phases: Tensor,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    ids: Tensor,
    corrupted_side: Tensor,
    order: Tensor | None = None,
) -> Tensor:
    """`rotate_score` in torch with autograd's gradients; `order` is only checked."""
    check_arguments(_CHECKS, table, phases, heads, relations, tails, ids, corrupted_side)
    _CHECKS.order(order, ids)
    embedding = torch.nn.functional.embedding
    theta = embedding(relations, phases)
    cos, sin = theta.cos(), theta.sin()

    def rotated(entities: Tensor, sin: Tensor) -> Tensor:
        re, im = embedding(entities, table).chunk(2, -1)
        return torch.cat([re * cos - im * sin, re * sin + im * cos], -1)

    queries = torch.stack([rotated(heads, sin), rotated(tails, -sin)])
    batch = torch.arange(ids.shape[0], device=ids.device)[:, None]
    position = corrupted_side.long() * ids.shape[0] + batch
    query_rows = embedding(position, queries.reshape(-1, table.shape[1]))
    rows = embedding(ids, table)
    return score_rows(query_rows, rows, Metric.modulus, whole_row(table.shape[1]))


def deferred_gradient(
    d_scores: Tensor,
    queries: Tensor,
    d_known: Tensor,
    args: Sequence[Tensor],
    order: Tensor | None,
) -> DeferredGradient:
    """The gradient of the entity table through RotatE's scores.

    Args:
        d_scores: ``[B, N]`` gradient of the scores.
        queries: ``[2, B, 2 d]`` rotated heads and tails.
        d_known: ``[2 B, 2 d]`` gradient of the rows of heads and tails.
        args: the arguments of the op up to `corrupted_side`.
        order: see `rotate_score`.
    """
    table, _, heads, _, tails, ids, corrupted_side = args
    numbers, weights = flat_pairs(whole_row(table.shape[1]))
    return DeferredGradient(
        d_scores, queries, ids, corrupted_side, int(Metric.modulus), numbers, weights,
        order=order, extra=d_known, extra_ids=torch.cat([heads, tails]), version=table._version,
    )  # fmt: skip


def _fake(table: Tensor, phases: Tensor, heads: Tensor, relations: Tensor, tails: Tensor,
          ids: Tensor, *_: Any) -> Tensor:  # fmt: skip
    return phases.new_empty(ids.shape)


def _fake_backward(grad: Tensor, table: Tensor, phases: Tensor, *_: Any) -> tuple[Tensor, Tensor]:
    return table.new_empty(table.shape), phases.new_empty(phases.shape)


def _fake_backward_queries(
    grad: Tensor, table: Tensor, phases: Tensor, heads: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    batch, width = heads.shape[0], table.shape[1]
    return (
        phases.new_empty(2, batch, width),
        phases.new_empty(2 * batch, width),
        phases.new_empty(phases.shape),
    )


def _setup(ctx: Any, inputs: tuple[Any, ...], output: Tensor) -> None:
    ctx.save_for_backward(*inputs)


def _backward(ctx: Any, grad: Tensor) -> tuple[Tensor | None, ...]:
    d_table = None
    if ctx.needs_input_grad[0]:
        d_table, d_phases = torch.ops.mmkgc.rotate_score_backward(grad, *ctx.saved_tensors)
    else:
        *_, d_phases = torch.ops.mmkgc.rotate_score_backward_queries(grad, *ctx.saved_tensors)
    gradients = first_order(NAME, (d_table, d_phases), (grad, *ctx.saved_tensors))
    return *gradients, *[None] * 6


def _deferred_backward(
    ctx: Any, grad: Tensor
) -> tuple[DeferredGradient, tuple[Tensor | None, ...]]:
    *args, order = ctx.saved_tensors
    queries, d_known, d_phases = torch.ops.mmkgc.rotate_score_backward_queries(grad, *args, order)
    of_table = deferred_gradient(grad.detach(), queries, d_known, args, order)
    gradients = first_order(NAME, (d_phases,), (grad, *ctx.saved_tensors))
    return of_table, (None, *gradients, *[None] * 6)


register(
    NAME,
    {"": _fake, "_backward": _fake_backward, "_backward_queries": _fake_backward_queries},
    _backward,
    _setup,
)
