"""The metrics between query rows and candidate rows, in torch.

The reference implementations of the scoring ops use these functions.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from enum import IntEnum
from typing import Any

import torch
from torch import Tensor


class Metric(IntEnum):
    """The term of a query block and a candidate block; values as in ``csrc/common/metric.h``.

    ``dot`` is a similarity; the others are distances, which are negated in scores. A block under
    ``modulus`` is laid out ``[re | im]``, and its distance is the sum of the complex moduli.
    """

    dot = 0
    l1 = 1
    l2 = 2
    modulus = 3


@dataclass(frozen=True)
class Pair:
    """One term of a score: ``weight * term(query block, candidate block)``.

    The blocks are ``width`` columns, which start at ``query`` in the query row and at ``candidate``
    in the candidate row. Under ``l2`` each pair has its own root.
    """

    query: int
    candidate: int
    width: int
    weight: float = 1.0


def whole_row(width: int) -> tuple[Pair, ...]:
    """One pair that spans both rows, the usual case."""
    return (Pair(0, 0, width),)


class _Modulus(torch.autograd.Function):
    """|x| over dimension -2 = (re, im), with gradient 0 at 0 (its subgradient of least norm)."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        re, im = x[..., 0, :], x[..., 1, :]
        # The kernels take the root of the sum of squares. Where the squares overflow, lose bits or
        # are NaN, hypot gives another result, so that the range is theirs as well.
        squares = re.square() + im.square()
        ordinary = (squares >= torch.finfo(x.dtype).tiny) & (squares < torch.inf)
        modulus = torch.where(ordinary, torch.hypot(re, im), squares.sqrt())
        ctx.save_for_backward(x, modulus)
        return modulus

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        x, modulus = ctx.saved_tensors
        factor: Tensor = torch.where(modulus == 0, 0, grad / modulus).unsqueeze(-2)
        grad_x: Tensor = x * factor
        return grad_x


def modulus(x: Tensor) -> Tensor:
    """Complex moduli ``[..., d]`` of rows ``[..., 2d]`` laid out [re | im].

    The gradient is finite everywhere: 0 where a modulus is 0.
    """
    parts = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    result: Tensor = _Modulus.apply(parts)  # type: ignore[no-untyped-call]
    return result


def score_rows(
    queries: Tensor,
    rows: Tensor,
    metric: Metric,
    pairs: Sequence[Pair],
    scale: Tensor | None = None,
) -> Tensor:
    """Scores query rows against candidate rows: dot products, or distances negated.

    Args:
        queries: ``[..., Dq]``.
        rows: ``[..., Dc]``, broadcast against ``queries`` over the leading dimensions.
        metric: shared by all pairs.
        pairs: the terms, which are summed.
        scale: ``[..., Dc]`` multiplied into ``rows`` (PairRE), or None.

    Returns:
        The scores, of the broadcast leading shape.
    """
    if scale is not None:
        rows = rows * scale
    total: Tensor | None = None
    for pair in pairs:
        q = _columns(queries, pair.query, pair.width)
        c = _columns(rows, pair.candidate, pair.width)
        if metric is Metric.dot:
            term = (q * c).sum(-1)
        elif metric is Metric.l1:
            term = -(q - c).abs().sum(-1)
        elif metric is Metric.l2:
            term = -_safe_root((q - c).square().sum(-1))
        else:
            term = -modulus(q - c).sum(-1) if pair.width else (q - c).sum(-1)
        term = pair.weight * term
        total = term if total is None else total + term
    if total is None:
        raise ValueError("a score needs at least one pair")
    return total


def _columns(rows: Tensor, start: int, width: int) -> Tensor:
    # Slicing the whole row would cost a copy in the backward pass.
    return rows if start == 0 and width == rows.shape[-1] else rows[..., start : start + width]


def _safe_root(squares: Tensor) -> Tensor:
    """The square root with gradient 0 at 0; NaN stays NaN."""
    zero = squares == 0
    return torch.where(zero, 0, torch.where(zero, 1, squares).sqrt())
