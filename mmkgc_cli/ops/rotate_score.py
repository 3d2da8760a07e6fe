"""RotatE's scores of sampled candidates straight from its two tables, with gradients.

The same as making RotatE's queries and calling `sampled_score`, but the rotation, its gradient and
the gradients of heads and tails are part of the two passes over the entity table.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops._arguments import Checks, flat_pairs
from mmkgc_cli.ops._autograd import first_order
from mmkgc_cli.ops.deferred import Deferred, DeferredGradient, deferred_gradients
from mmkgc_cli.ops.metric import Metric, score_rows, whole_row

NAME = "rotate_score"
_CHECKS = Checks(NAME)


def rotate_score(
    table: Tensor,
    phases: Tensor,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    ids: Tensor,
    side: Tensor,
    order: Tensor | None = None,
) -> Tensor:
    """Minus the RotatE distance (Sun et al. 2019, eq. 2) of each candidate; no margin.

    Args:
        table: ``[E, 2 d]`` entities, float32 or float64, laid out [re | im]. The kernels of a GPU
            also take float16 and bfloat16, beside phases in float32, in which they compute.
        phases: ``[R, d]`` angles of the relations, of the same dtype.
        heads: ``[B]`` int64; with `relations` the query of candidates that stand for tails.
        relations: ``[B]`` int64.
        tails: ``[B]`` int64; with `relations` the query of candidates that stand for heads.
        ids: ``[B, N]`` int64 candidates. The positives themselves are candidates like others.
        side: ``[B, N]`` int8 (`sides.Side`): 0 replaces the tail, 1 the head.
        order: ``[B * N]`` int64 positions of `ids` sorted by id; made when None.

    Returns:
        Scores ``[B, N]``, differentiable in `table` and `phases`.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids, naming the argument.
    """
    args = (table, phases, heads, relations, tails, ids, side, order)
    deferred = deferred_gradients(table)
    if deferred is not None:
        deferring: Tensor = _Deferring.apply(deferred, *args)  # type: ignore[no-untyped-call]
        return deferring
    if _native.has_kernel(NAME, table.device.type):
        result: Tensor = torch.ops.mmkgc.rotate_score(*args)
        return result
    return reference(*args)


def check_arguments(
    checks: Checks,
    table: Tensor,
    phases: Tensor,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    ids: Tensor,
    side: Tensor,
) -> None:
    """The checks of ``checks/rotate_arguments.h``, word for word (a test compares them)."""
    c = checks
    c.matrix("table", table)
    c.real("table", table)
    width = table.shape[1]
    c.require(width % 2 == 0, f"table has odd width {width}, a complex row is [re | im]")
    c.matrix("phases", phases)
    c.same_dtype("phases", phases, "table", table)
    c.require(
        2 * phases.shape[1] == width,
        f"phases has width {phases.shape[1]}, expected {width // 2} (half a table row)",
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
            f"{name} has {known.shape[0]} entries, expected {batch} (one a positive)",
        )
        c.ids(name, known, bound)
    c.candidates(ids, side, batch, 2, table.shape[0])


def reference(
    table: Tensor,
    phases: Tensor,
    heads: Tensor,
    relations: Tensor,
    tails: Tensor,
    ids: Tensor,
    side: Tensor,
    order: Tensor | None = None,
) -> Tensor:
    """`rotate_score` in torch, whose autograd makes the gradients; `order` is only checked."""
    check_arguments(_CHECKS, table, phases, heads, relations, tails, ids, side)
    _CHECKS.order(order, ids)
    embedding = torch.nn.functional.embedding
    theta = embedding(relations, phases)
    cos, sin = theta.cos(), theta.sin()

    def rotated(entities: Tensor, sin: Tensor) -> Tensor:
        re, im = embedding(entities, table).chunk(2, -1)
        return torch.cat([re * cos - im * sin, re * sin + im * cos], -1)

    queries = torch.stack([rotated(heads, sin), rotated(tails, -sin)])
    batch = torch.arange(ids.shape[0], device=ids.device)[:, None]
    at = side.long() * ids.shape[0] + batch
    chosen = embedding(at, queries.reshape(-1, table.shape[1]))
    rows = embedding(ids, table)
    return score_rows(chosen, rows, Metric.modulus, whole_row(table.shape[1]))


class _Deferring(torch.autograd.Function):
    """The op for a table whose gradient the optimizer makes."""

    @staticmethod
    def forward(ctx: Any, deferred: list[Deferred], *args: Any) -> Tensor:
        ctx.deferred = deferred
        _setup(ctx, args, args[0])
        scores: Tensor = torch.ops.mmkgc.rotate_score(*args)
        return scores

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        (grad,) = grads
        table, phases, heads, relations, tails, ids, side, order = ctx.saved_tensors
        queries, d_known, d_phases = torch.ops.mmkgc.rotate_score_backward_queries(
            grad, table, phases, heads, relations, tails, ids, side, order
        )
        numbers, weights = flat_pairs(whole_row(table.shape[1]))
        ctx.deferred.append(
            DeferredGradient(
                grad.detach(), queries, ids, side, int(Metric.modulus), numbers, weights,
                order=order, extra=d_known, extra_ids=torch.cat([heads, tails]),
                version=table._version,
            )
        )  # fmt: skip
        made = first_order(NAME, (d_phases,), (grad, *ctx.saved_tensors))
        return None, None, *made, *[None] * 6


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
    made = first_order(NAME, (d_table, d_phases), (grad, *ctx.saved_tensors))
    return *made, *[None] * 6


if _native.library().loaded:
    torch.library.register_fake(f"mmkgc::{NAME}")(_fake)
    torch.library.register_fake(f"mmkgc::{NAME}_backward")(_fake_backward)
    torch.library.register_fake(f"mmkgc::{NAME}_backward_queries")(_fake_backward_queries)
    torch.library.register_autograd(f"mmkgc::{NAME}", _backward, setup_context=_setup)
