"""What the autograd formulas of the ops share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor


class _Refusing(torch.autograd.Function):
    """The value itself; whoever differentiates it is told that nobody can."""

    @staticmethod
    def forward(ctx: Any, op: str, value: Tensor, *reasons: Tensor) -> Tensor:
        ctx.op = op
        return value.detach()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> None:
        raise RuntimeError(f"{ctx.op} has no second derivatives")


def first_order(
    op: str, gradients: Sequence[Tensor | None], made_from: Sequence[Tensor | None]
) -> tuple[Tensor | None, ...]:
    """`gradients` of an op without second derivatives, which raise instead of being 0.

    Under ``create_graph=True`` the gradients are functions of what they were `made_from`.
    """
    if not torch.is_grad_enabled():
        return tuple(gradients)
    reasons = [t for t in made_from if t is not None and t.requires_grad]
    if not reasons:
        return tuple(gradients)
    return tuple(None if g is None else _refusing(op, g, reasons) for g in gradients)


def _refusing(op: str, value: Tensor, reasons: Sequence[Tensor]) -> Tensor:
    refusing: Tensor = _Refusing.apply(op, value, *reasons)  # type: ignore[no-untyped-call]
    return refusing
