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


class _Norm(torch.autograd.Function):
    """The L2 norm over a dimension, with gradient 0 at 0 (its subgradient of least norm).

    This is the root of the sum of squares as in the kernels, so that the range is theirs: infinite
    where the squares overflow, 0 where they underflow. The gradient is x over the norm, which
    counts as at least the root of the smallest normal number, as in ``csrc/common/gradient.h``.
    Below it the squares lose bits, and the gradient falls to 0 in proportion to x.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, dim: int) -> Tensor:
        if dim == -2:  # complex rows; a sum over a dimension of size 2 is slow
            re, im = x[..., 0, :], x[..., 1, :]
            norm = re.square().addcmul_(im, im).sqrt_()
        else:
            norm = x.square().sum(dim).sqrt_()
        ctx.save_for_backward(x, norm)
        ctx.dim = dim
        return norm

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        x, norm = ctx.saved_tensors
        smallest = torch.finfo(x.dtype).tiny ** 0.5
        return x * (grads[0] / norm.clamp_min(smallest)).unsqueeze(ctx.dim), None


def _norm(x: Tensor) -> Tensor:
    result: Tensor = _Norm.apply(x, -1)  # type: ignore[no-untyped-call]
    return result


def modulus(x: Tensor) -> Tensor:
    """Complex moduli ``[..., d]`` of rows ``[..., 2d]`` laid out [re | im].

    The gradient is 0 where a modulus is 0, and where it is infinite by overflow of squares.
    """
    parts = x.reshape(*x.shape[:-1], 2, x.shape[-1] // 2)
    result: Tensor = _Norm.apply(parts, -2)  # type: ignore[no-untyped-call]
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
    if scale is not None and metric is not Metric.dot:
        rows = rows * scale
    total: Tensor | None = None
    for pair in pairs:
        q = _columns(queries, pair.query, pair.width)
        c = _columns(rows, pair.candidate, pair.width)
        if metric is Metric.dot:
            # The kernels and products with whole tables multiply in this order, too: the first
            # product may overflow.
            left = q if scale is None else q * _columns(scale, pair.candidate, pair.width)
            term = (left * c).sum(-1)
        elif metric is Metric.l1:
            term = -(q - c).abs().sum(-1)
        elif metric is Metric.l2:
            term = -_norm(q - c)
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
