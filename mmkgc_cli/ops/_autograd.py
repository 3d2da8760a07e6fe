"""Autograd functions shared by the ops that score candidates."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops.deferred import Deferred, DeferredGradient, deferred_gradients

# From the context and the gradient of the result: the deferred gradient of the table, and the
# gradients of all arguments of the op.
DeferredBackward = Callable[[Any, Tensor], tuple[DeferredGradient, tuple[Tensor | None, ...]]]


class _Refusing(torch.autograd.Function):
    """Returns the value unchanged; its backward pass raises."""

    @staticmethod
    def forward(ctx: Any, op: str, value: Tensor, *inputs: Tensor) -> Tensor:
        ctx.op = op
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(f"{ctx.op} has no second derivatives")


def first_order(
    op: str, gradients: Sequence[Tensor | None], inputs: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """`gradients` of an op without second derivatives: differentiating them raises.

    Under ``create_graph=True`` the gradients are functions of `inputs`; without this their
    derivatives would silently be 0.
    """
    if not torch.is_grad_enabled():
        return tuple(gradients)
    differentiable = [t for t in inputs if t is not None and t.requires_grad]
    if not differentiable:
        return tuple(gradients)
    return tuple(None if g is None else _refusing(op, g, differentiable) for g in gradients)


def _refusing(op: str, value: Tensor, inputs: Sequence[Tensor]) -> Tensor:
    refusing: Tensor = _Refusing.apply(op, value, *inputs)  # type: ignore[no-untyped-call]
    return refusing


class _Deferring(torch.autograd.Function):
    """An op with a backward pass that appends the gradient of a table to `deferred`, if any."""

    @staticmethod
    def forward(
        ctx: Any,
        op: str,
        setup: Callable[..., None],
        backward: DeferredBackward,
        deferred: list[Deferred] | None,
        *args: Any,
    ) -> Tensor:
        results = getattr(torch.ops.mmkgc, op)(*args)
        setup(ctx, args, results)
        ctx.deferred, ctx.deferred_backward = deferred, backward
        result: Tensor = results if isinstance(results, Tensor) else results[0]
        return result

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:
        gradient, gradients = ctx.deferred_backward(ctx, grads[0])
        if ctx.deferred is not None:
            ctx.deferred.append(gradient)
        return None, None, None, None, *gradients


def deferring(
    op: str,
    args: tuple[Any, ...],
    deferred: list[Deferred] | None,
    setup: Callable[..., None],
    backward: DeferredBackward,
) -> Tensor:
    """The first result of an op; the gradient of its table is left to the optimizer.

    Args:
        op: its name.
        args: its arguments.
        deferred: the list that receives the gradient of the table; None for a frozen table.
        setup: saves the arguments and results for `backward`.
        backward: see `DeferredBackward`.
    """
    result: Tensor = _Deferring.apply(op, setup, backward, deferred, *args)  # type: ignore[no-untyped-call]
    return result


def score(
    op: str,
    args: tuple[Any, ...],
    table: Tensor,
    *,
    reference: Callable[..., Tensor],
    setup: Callable[..., None],
    backward: DeferredBackward,
) -> Tensor:
    """Runs a scoring op on its backend; `backward` serves a deferred gradient of `table`."""
    deferred = deferred_gradients(table)
    if deferred is not None:
        return deferring(op, args, deferred, setup, backward)
    if _native.has_kernel(op, args[0].device.type):
        result: Tensor = getattr(torch.ops.mmkgc, op)(*args)
        return result
    return reference(*args)


def register(
    op: str,
    fakes: dict[str, Callable[..., Any]],
    backward: Callable[..., Any] | None = None,
    setup: Callable[..., None] | None = None,
) -> None:
    """Registers fakes, by the suffix of the op's name, and the backward pass, if any."""
    if not _native.library().loaded:
        return
    for suffix, fake in fakes.items():
        torch.library.register_fake(f"mmkgc::{op}{suffix}")(fake)
    if backward is not None:
        torch.library.register_autograd(f"mmkgc::{op}", backward, setup_context=setup)
