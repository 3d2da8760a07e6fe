"""An Adam step on a table straight from the gradients of its sampled candidates' scores.

Each row's gradient is made and the row stepped at once; see `ops.deferred` for where they come
from.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops.deferred import DeferredGradient
from mmkgc_cli.ops.sampled_score import reference as scores_in_torch

NAME = "table_adam"
_CHECKS = Checks(NAME)


def dense_gradient(of: DeferredGradient, table: Tensor) -> Tensor:
    """The gradient itself, in the shape of `table`."""
    if _native.has_kernel("sampled_score", table.device.type):
        return _gradient(of, table, torch.ops.mmkgc.sampled_score)
    return _gradient(of, table, scores_in_torch)


def _gradient(of: DeferredGradient, table: Tensor, score: Callable[..., Tensor]) -> Tensor:
    with torch.enable_grad():
        rows = table.detach().requires_grad_()
        scores = score(
            of.queries.detach(), rows, of.ids, of.side, of.metric, of.pairs, of.weights,
            None if of.scale is None else of.scale.detach(), of.order,
        )  # fmt: skip
    (gradient,) = torch.autograd.grad(scores, rows, of.grad)
    if of.extra is not None and of.extra_ids is not None:
        gradient.index_add_(0, of.extra_ids, of.extra)
    return gradient


def table_adam(
    table: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    gradient: DeferredGradient,
    step: int,
    lr: float,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    dense: Tensor | None = None,
    counter: Tensor | None = None,
) -> Tensor:
    """One step of Adam, or of AdamW when `decoupled`, on all rows of `table`, in place.

    Args:
        table: ``[E, Dc]`` float32 or float64, contiguous.
        exp_avg: ``[E, Dc]`` running mean of the gradient, changed in place.
        exp_avg_sq: ``[E, Dc]`` running mean of its square, changed in place.
        gradient: of the scores of sampled candidates.
        step: 1 for the first.
        lr: learning rate.
        betas: decay of the two means.
        eps: added to the root of the second.
        weight_decay: as in `torch.optim.Adam` and `torch.optim.AdamW`.
        decoupled: which of the two.
        dense: ``[E, Dc]`` gradient from elsewhere, added.
        counter: one int64 beside `table`, added to `step`: on a GPU it is read when the kernel
            runs, so that a captured CUDA graph goes on counting.

    Returns:
        The squared L2 norm of the whole gradient, a float64 scalar.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids, naming the argument.
    """
    g = gradient
    for name, read in (("queries", g.queries), ("scale", g.scale), ("extra", g.extra)):
        shared = read is not None and read.untyped_storage().data_ptr()
        _CHECKS.require(
            not shared or shared != table.untyped_storage().data_ptr(),
            f"{name} and table share memory, and table is changed",
        )
    args = (
        g.grad, g.queries, table.detach(), exp_avg, exp_avg_sq, g.ids, g.side, g.metric, g.pairs,
        g.weights, g.scale, g.order, g.extra, g.extra_ids, dense, lr, *betas, eps, weight_decay,
        decoupled, step, counter,
    )  # fmt: skip
    if _native.has_kernel(NAME, table.device.type):
        squares: Tensor = torch.ops.mmkgc.table_adam(*args)
        return squares
    return reference(*args)


def reference(
    grad: Tensor,
    queries: Tensor,
    table: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    ids: Tensor,
    side: Tensor,
    metric: int,
    pairs: Sequence[int],
    weights: Sequence[float],
    scale: Tensor | None,
    order: Tensor | None,
    extra: Tensor | None,
    extra_ids: Tensor | None,
    dense: Tensor | None,
    lr: float,
    beta1: float,
    beta2: float,
    eps: float,
    weight_decay: float,
    decoupled: bool,
    step: int,
    counter: Tensor | None = None,
) -> Tensor:
    """`table_adam` in torch: the gradient written out, then the formula of `torch.optim.Adam`."""
    _check_arguments(
        grad, queries, table, exp_avg, exp_avg_sq, ids, side, metric, pairs, weights, scale,
        order, extra, extra_ids, dense, step, counter,
    )  # fmt: skip
    if counter is not None:
        step += int(counter)
    of = DeferredGradient(
        grad, queries, ids, side, metric, pairs, weights, scale, order, extra, extra_ids
    )
    gradient = _gradient(of, table, scores_in_torch)
    if dense is not None:
        gradient = gradient + dense
    squares = gradient.double().square().sum()
    if decoupled:
        table.mul_(1 - lr * weight_decay)
    elif weight_decay:
        gradient = gradient + weight_decay * table
    exp_avg.mul_(beta1).add_(gradient, alpha=1 - beta1)
    exp_avg_sq.mul_(beta2).addcmul_(gradient, gradient, value=1 - beta2)
    root = exp_avg_sq.sqrt() / (1 - beta2**step) ** 0.5 + eps
    table.addcdiv_(exp_avg, root, value=-lr / (1 - beta1**step))
    return squares


def _check_arguments(
    grad: Tensor,
    queries: Tensor,
    table: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    ids: Tensor,
    side: Tensor,
    metric: int,
    pairs: Sequence[int],
    weights: Sequence[float],
    scale: Tensor | None,
    order: Tensor | None,
    extra: Tensor | None,
    extra_ids: Tensor | None,
    dense: Tensor | None,
    step: int,
    counter: Tensor | None,
) -> None:
    """The checks of ``checks/adam_arguments.h``, word for word (a test compares them)."""
    c = _CHECKS
    c.sampled(queries, table, ids, side, metric, pairs, weights, scale)
    for name, state in (("table", table), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        c.same_dtype(name, state, "table", table)
        c.require(state.shape == table.shape, f"{name} must have the shape of table")
        c.require(state.is_contiguous(), f"{name} must be contiguous")
    c.require(step >= 1, f"step is {step}, expected 1 or more")
    c.counter(counter)
    if dense is not None:
        c.require(dense.shape == table.shape, "dense must have the shape of table")
        c.same_dtype("dense", dense, "table", table)
    c.require(grad.shape == ids.shape, "grad must have the shape of ids")
    c.same_dtype("grad", grad, "queries", queries)
    c.order(order, ids)
    c.require((extra is None) == (extra_ids is None), "extra and extra_ids come together")
    if extra is not None and extra_ids is not None:
        c.matrix("extra", extra)
        c.same_dtype("extra", extra, "table", table)
        c.index("extra_ids", extra_ids)
        shape = (extra_ids.numel(), table.shape[1])
        c.require(tuple(extra.shape) == shape, f"extra must be [{shape[0]}, {shape[1]}]")
        c.ids("extra_ids", extra_ids, table.shape[0])


def _fake(grad: Tensor, queries: Tensor, table: Tensor, *_: Any) -> Tensor:
    return table.new_empty((), dtype=torch.float64)


if _native.library().loaded:
    # A step carries no gradient, so there is no autograd formula to register.
    torch.library.register_fake(f"mmkgc::{NAME}")(_fake)
