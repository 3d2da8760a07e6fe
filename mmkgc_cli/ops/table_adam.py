"""An Adam step on a table, computed from the deferred gradient of its candidates' scores.

The gradient of each row is computed and the row is stepped in one pass; see `ops.deferred`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops._arguments import Checks
from mmkgc_cli.ops._autograd import register
from mmkgc_cli.ops.deferred import DeferredGradient
from mmkgc_cli.ops.sampled_score import reference as reference_scores

NAME = "table_adam"
_CHECKS = Checks(NAME)


def dense_gradient(gradient: DeferredGradient, table: Tensor) -> Tensor:
    """The gradient as a tensor of the shape of `table`."""
    if _native.has_kernel("sampled_score", table.device.type):
        return _dense(gradient, table, torch.ops.mmkgc.sampled_score)
    return _dense(gradient, table, reference_scores)


def _dense(g: DeferredGradient, table: Tensor, score: Callable[..., Tensor]) -> Tensor:
    with torch.enable_grad():
        rows = table.detach().requires_grad_()
        scores = score(
            g.queries.detach(), rows, g.ids, g.corrupted_side, g.metric, g.pairs, g.weights,
            None if g.scale is None else g.scale.detach(), g.order,
        )  # fmt: skip
    (gradient,) = torch.autograd.grad(scores, rows, g.grad)
    if g.extra is not None and g.extra_ids is not None:
        gradient.index_add_(0, g.extra_ids, g.extra)
    return gradient


def table_adam(
    table: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    gradient: DeferredGradient,
    step: int,
    lr: float,
    *,
    betas: tuple[float, float] = (0.9, 0.999),
    eps: float = 1e-8,
    weight_decay: float = 0.0,
    decoupled: bool = False,
    dense: Tensor | None = None,
    counter: Tensor | None = None,
) -> Tensor:
    """One step of Adam, or of AdamW if `decoupled`, on all rows of `table`, in place.

    Args:
        table: ``[E, Dc]`` float32 or float64, contiguous.
        exp_avg: ``[E, Dc]`` running mean of the gradient, changed in place.
        exp_avg_sq: ``[E, Dc]`` running mean of its square, changed in place.
        gradient: of the scores of sampled candidates.
        step: 1 for the first step.
        lr: learning rate.
        betas: decay rates of the two means.
        eps: added to the root of the second mean.
        weight_decay: as in `torch.optim.Adam` and `torch.optim.AdamW`.
        decoupled: decay the weights as AdamW does.
        dense: ``[E, Dc]`` gradient to add.
        counter: one int64 on the device of `table`, added to `step`. A CUDA kernel reads it when it
            runs, so that the steps of a replayed CUDA graph are counted.

    Returns:
        The squared L2 norm of the whole gradient, a float64 scalar.

    Raises:
        RuntimeError: on wrong shapes, dtypes or ids; the message names the argument.
    """
    g = gradient
    for name, tensor in (("queries", g.queries), ("scale", g.scale), ("extra", g.extra)):
        storage = tensor is not None and tensor.untyped_storage().data_ptr()
        _CHECKS.require(
            not storage or storage != table.untyped_storage().data_ptr(),
            f"{name} and table share memory, but table is changed in place",
        )
    args = (
        g.grad, g.queries, table.detach(), exp_avg, exp_avg_sq, g.ids, g.corrupted_side, g.metric,
        g.pairs, g.weights, g.scale, g.order, g.extra, g.extra_ids, dense, lr, *betas, eps,
        weight_decay, decoupled, step, counter,
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
    corrupted_side: Tensor,
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
    """`table_adam` in torch: the dense gradient, then the formula of `torch.optim.Adam`."""
    deferred = DeferredGradient(
        grad, queries, ids, corrupted_side, metric, pairs, weights, scale, order, extra, extra_ids
    )
    _check_arguments(deferred, table, exp_avg, exp_avg_sq, dense, step=step, counter=counter)
    if counter is not None:
        step += int(counter)
    gradient = _dense(deferred, table, reference_scores)
    if dense is not None:
        gradient = gradient + dense
    squares = gradient.double().square().sum()
    if decoupled:
        table.mul_(1 - lr * weight_decay)
    elif weight_decay:
        gradient = gradient + weight_decay * table
    exp_avg.mul_(beta1).add_(gradient, alpha=1 - beta1)
    exp_avg_sq.mul_(beta2).add_(gradient.square(), alpha=1 - beta2)
    root = exp_avg_sq.sqrt() / (1 - beta2**step) ** 0.5 + eps
    table.addcdiv_(exp_avg, root, value=-lr / (1 - beta1**step))
    return squares


def _check_arguments(
    g: DeferredGradient,
    table: Tensor,
    exp_avg: Tensor,
    exp_avg_sq: Tensor,
    dense: Tensor | None,
    *,
    step: int,
    counter: Tensor | None,
) -> None:
    c = _CHECKS
    c.sampled(
        g.queries, table, g.ids, g.corrupted_side, g.metric, g.pairs,
        weights=g.weights, scale=g.scale,
    )  # fmt: skip
    for name, state in (("table", table), ("exp_avg", exp_avg), ("exp_avg_sq", exp_avg_sq)):
        c.same_dtype(name, state, "table", table)
        c.require(state.shape == table.shape, f"{name} must have the shape of table")
        c.require(state.is_contiguous(), f"{name} must be contiguous")
    c.require(step >= 1, f"step is {step}, expected 1 or more")
    c.counter(counter)
    if dense is not None:
        c.require(dense.shape == table.shape, "dense must have the shape of table")
        c.same_dtype("dense", dense, "table", table)
    c.require(g.grad.shape == g.ids.shape, "grad must have the shape of ids")
    c.same_dtype("grad", g.grad, "queries", g.queries)
    c.order(g.order, g.ids)
    c.require(
        (g.extra is None) == (g.extra_ids is None), "extra and extra_ids must be given together"
    )
    if g.extra is not None and g.extra_ids is not None:
        c.matrix("extra", g.extra)
        c.same_dtype("extra", g.extra, "table", table)
        c.index("extra_ids", g.extra_ids)
        shape = (g.extra_ids.numel(), table.shape[1])
        c.require(tuple(g.extra.shape) == shape, f"extra must be [{shape[0]}, {shape[1]}]")
        c.ids("extra_ids", g.extra_ids, table.shape[0])


def _fake(grad: Tensor, queries: Tensor, table: Tensor, *_: Any) -> Tensor:
    return table.new_empty((), dtype=torch.float64)


register(NAME, {"": _fake})
