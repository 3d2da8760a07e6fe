"""Argument checks of the reference implementations.

The native ops make the same checks with the same messages (``csrc/bindings``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmkgc_cli.ops.metric import Metric, Pair


class Checks:
    """The checks of one op; every message begins with the name of the op."""

    def __init__(self, op: str) -> None:
        self.op = op

    def require(self, condition: bool, message: str) -> None:
        """Raises `message` unless the condition holds."""
        if not condition:
            raise RuntimeError(f"{self.op}: {message}")

    def dimensions(self, name: str, x: Tensor, expected: int) -> None:
        """`x` has the expected number of dimensions."""
        self.require(x.dim() == expected, f"{name} has {x.dim()} dimensions, expected {expected}")

    def matrix(self, name: str, x: Tensor) -> None:
        """`x` has two dimensions."""
        self.dimensions(name, x, 2)

    def index(self, name: str, x: Tensor) -> None:
        """`x` is a vector of int64."""
        self.dimensions(name, x, 1)
        self.require(x.dtype == torch.int64, f"{name} must be int64")

    def real(self, name: str, x: Tensor) -> None:
        """`x` is float32 or float64."""
        real = x.dtype in (torch.float32, torch.float64)
        self.require(real, f"{name} must be float32 or float64")

    def same_dtype(self, name: str, x: Tensor, other_name: str, y: Tensor) -> None:
        """`x` and `y` have the same dtype."""
        self.require(x.dtype == y.dtype, f"{name} and {other_name} must have the same dtype")

    def ids(self, name: str, ids: Tensor, bound: int) -> None:
        """All ids are within 0..bound-1; the message counts positions in row-major order."""
        flat = ids.reshape(-1)
        bad = ((flat < 0) | (flat >= bound)).nonzero().flatten()
        if bad.numel():
            i = int(bad[0])
            self.require(False, f"{name}[{i}] is {int(flat[i])}, outside 0..{bound - 1}")

    def counter(self, counter: Tensor | None) -> None:
        """`counter` holds one int64 value, or is None."""
        one = counter is None or (counter.numel() == 1 and counter.dtype == torch.int64)
        self.require(one, "counter must hold one int64 value")

    def metric(self, metric: int) -> Metric:
        """`metric` is a value of `Metric`."""
        self.require(
            0 <= metric <= 3,
            f"metric is {metric}, expected 0 (dot), 1 (l1), 2 (l2) or 3 (modulus)",
        )
        return Metric(metric)

    def pairs(
        self,
        pairs: Sequence[int],
        weights: Sequence[float],
        metric: Metric,
        query_width: int,
        candidate_width: int,
    ) -> list[Pair]:
        """Three numbers per weight, within the rows, and of even width under modulus."""
        self.require(
            len(weights) > 0 and len(pairs) == 3 * len(weights),
            f"pairs holds {len(pairs)} numbers for {len(weights)} weights, expected three per "
            "weight and at least one pair",
        )
        terms = []
        for i, weight in enumerate(weights):
            q, c, w = pairs[3 * i : 3 * i + 3]
            self.require(
                min(q, c, w) >= 0 and q + w <= query_width and c + w <= candidate_width,
                f"pair {i} ({q}, {c}, {w}) exceeds queries of width {query_width} or a table of "
                f"width {candidate_width}",
            )
            self.require(
                metric != Metric.modulus or w % 2 == 0,
                f"pair {i} has odd width {w}, expected an even width for a complex block [re | im]",
            )
            terms.append(Pair(q, c, w, weight))
        return terms

    def distinct(self, name: str, ids: Tensor | None, entities: int) -> None:
        """`ids` are distinct entities, or None for all entities."""
        if ids is None:
            return
        self.index(name, ids)
        self.ids(name, ids, entities)
        ordered = ids.sort(stable=True)
        repeated = ordered.indices[1:][ordered.values[1:] == ordered.values[:-1]]
        if repeated.numel():
            self.require(False, f"{name} lists entity {int(ids[int(repeated.min())])} twice")

    def candidates(
        self, ids: Tensor, corrupted_side: Tensor, batch: int, sides: int, entities: int
    ) -> None:
        """Candidate ids and sides have the shape ``[batch, N]`` and are within their bounds."""
        self.require(
            ids.dim() == 2 and ids.shape[0] == batch, f"ids must be [{batch}, N], one row per query"
        )
        self.require(ids.dtype == torch.int64, "ids must be int64")
        same_shape = corrupted_side.shape == ids.shape
        self.require(same_shape, "corrupted_side must have the shape of ids")
        self.require(corrupted_side.dtype == torch.int8, "corrupted_side must be int8")
        self.ids("ids", ids, entities)
        self.ids("corrupted_side", corrupted_side, sides)

    def sampled(
        self,
        queries: Tensor,
        table: Tensor,
        ids: Tensor,
        corrupted_side: Tensor,
        metric: int,
        pairs: Sequence[int],
        *,
        weights: Sequence[float],
        scale: Tensor | None = None,
    ) -> list[Pair]:
        """The arguments of `sampled_score`; returns the terms of the score."""
        self.require(
            queries.dim() == 3 and queries.shape[0] in (1, 2), "queries must be [1 or 2, B, Dq]"
        )
        self.real("queries", queries)
        self.matrix("table", table)
        self.same_dtype("table", table, "queries", queries)
        if scale is not None:
            shape = (queries.shape[0], queries.shape[1], table.shape[1])
            self.require(
                tuple(scale.shape) == shape and scale.dtype == queries.dtype,
                f"scale must be [{shape[0]}, {shape[1]}, {shape[2]}] with the dtype of queries",
            )
        checked = self.metric(metric)
        terms = self.pairs(pairs, weights, checked, queries.shape[2], table.shape[1])
        self.candidates(ids, corrupted_side, queries.shape[1], queries.shape[0], table.shape[0])
        return terms

    def mask(self, mask: Tensor | None, other_name: str, other: Tensor) -> None:
        """`mask` is bool and has the shape of `other`, or is None."""
        if mask is not None:
            self.require(mask.shape == other.shape, f"mask must have the shape of {other_name}")
            self.require(mask.dtype == torch.bool, "mask must be bool")

    def order(self, order: Tensor | None, ids: Tensor) -> None:
        """`order` sorts the positions of `ids` by id, equal ids by position, or is None."""
        if order is None:
            return
        n = ids.numel()
        self.index("order", order)
        self.require(
            order.numel() == n,
            f"order has {order.numel()} entries, expected {n} (one per candidate)",
        )
        self.ids("order", order, n)
        sorted_ids = ids.reshape(-1)[order]
        ascending = (sorted_ids[:-1] < sorted_ids[1:]) | (
            (sorted_ids[:-1] == sorted_ids[1:]) & (order[:-1] < order[1:])
        )
        bad = (~ascending).nonzero().flatten()
        if bad.numel():
            self.require(False, f"order does not sort the ids at entry {int(bad[0]) + 1}")


def flat_pairs(pairs: Sequence[Pair]) -> tuple[list[int], list[float]]:
    """Pairs in the form of the schemas: three numbers per pair, and the weights."""
    numbers = [n for p in pairs for n in (p.query, p.candidate, p.width)]
    return numbers, [float(p.weight) for p in pairs]
