"""Argument checks that the references share: those of ``checks/arguments.h``, word for word."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmkgc_cli.ops.metric import Metric, Pair


class Checks:
    """The checks of one op; messages begin with its name."""

    def __init__(self, op: str) -> None:
        self.op = op

    def require(self, condition: bool, message: str) -> None:
        """Raises `message` unless the condition holds."""
        if not condition:
            raise RuntimeError(f"{self.op}: {message}")

    def dimensions(self, name: str, x: Tensor, expected: int) -> None:
        """As many dimensions as expected."""
        self.require(x.dim() == expected, f"{name} has {x.dim()} dimensions, expected {expected}")

    def matrix(self, name: str, x: Tensor) -> None:
        """Two dimensions."""
        self.dimensions(name, x, 2)

    def index(self, name: str, x: Tensor) -> None:
        """One dimension of int64."""
        self.dimensions(name, x, 1)
        self.require(x.dtype == torch.int64, f"{name} must be int64")

    def real(self, name: str, x: Tensor) -> None:
        """float32 or float64."""
        real = x.dtype in (torch.float32, torch.float64)
        self.require(real, f"{name} must be float32 or float64")

    def same_dtype(self, name: str, x: Tensor, like: str, y: Tensor) -> None:
        """Equal dtypes."""
        self.require(x.dtype == y.dtype, f"{name} and {like} must have the same dtype")

    def ids(self, name: str, ids: Tensor, bound: int) -> None:
        """All within 0..bound-1; positions are counted in row-major order."""
        flat = ids.reshape(-1)
        bad = ((flat < 0) | (flat >= bound)).nonzero().flatten()
        if bad.numel():
            at = int(bad[0])
            self.require(False, f"{name}[{at}] is {int(flat[at])}, outside 0..{bound - 1}")

    def counter(self, counter: Tensor | None) -> None:
        """One number that is added to the step."""
        one = counter is None or (counter.numel() == 1 and counter.dtype == torch.int64)
        self.require(one, "counter must be one int64")

    def metric(self, metric: int) -> Metric:
        """One of the four."""
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
        """Three numbers a weight, inside the rows, and even under modulus."""
        self.require(
            len(weights) > 0 and len(pairs) == 3 * len(weights),
            f"pairs holds {len(pairs)} numbers for {len(weights)} weights, expected three a "
            "weight and at least one pair",
        )
        terms = []
        for i, weight in enumerate(weights):
            q, c, w = pairs[3 * i : 3 * i + 3]
            self.require(
                min(q, c, w) >= 0 and q + w <= query_width and c + w <= candidate_width,
                f"pair {i} ({q}, {c}, {w}) reaches outside queries of width {query_width} or a "
                f"table of width {candidate_width}",
            )
            self.require(
                metric != Metric.modulus or w % 2 == 0,
                f"pair {i} has odd width {w}, a complex block is [re | im]",
            )
            terms.append(Pair(q, c, w, weight))
        return terms

    def chosen(self, name: str, chosen: Tensor | None, entities: int) -> None:
        """Distinct entities, or None for all."""
        if chosen is None:
            return
        self.index(name, chosen)
        self.ids(name, chosen, entities)
        ordered = chosen.sort(stable=True)
        again = ordered.indices[1:][ordered.values[1:] == ordered.values[:-1]]
        if again.numel():
            self.require(False, f"{name} lists entity {int(chosen[int(again.min())])} twice")

    def candidates(self, ids: Tensor, side: Tensor, batch: int, sides: int, entities: int) -> None:
        """Candidate ids and sides, a row a query."""
        self.require(
            ids.dim() == 2 and ids.shape[0] == batch, f"ids must be [{batch}, N], a row a query"
        )
        self.require(ids.dtype == torch.int64, "ids must be int64")
        self.require(side.shape == ids.shape, "side must have the shape of ids")
        self.require(side.dtype == torch.int8, "side must be int8")
        self.ids("ids", ids, entities)
        self.ids("side", side, sides)

    def sampled(
        self,
        queries: Tensor,
        table: Tensor,
        ids: Tensor,
        side: Tensor,
        metric: int,
        pairs: Sequence[int],
        weights: Sequence[float],
        scale: Tensor | None,
    ) -> list[Pair]:
        """The arguments of sampled scoring (``checks/sampled_arguments.h``); returns the terms."""
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
                f"scale must be [{shape[0]}, {shape[1]}, {shape[2]}] of the queries' dtype",
            )
        kind = self.metric(metric)
        terms = self.pairs(pairs, weights, kind, queries.shape[2], table.shape[1])
        self.candidates(ids, side, queries.shape[1], queries.shape[0], table.shape[0])
        return terms

    def loss_scores(self, positive: Tensor, negative: Tensor, usable: Tensor | None) -> None:
        """Scores of one positive and N negatives a row, as ``checks/loss_scores.h`` checks."""
        self.dimensions("positive", positive, 1)
        self.real("positive", positive)
        self.matrix("negative", negative)
        self.same_dtype("negative", negative, "positive", positive)
        self.require(
            negative.shape[0] == positive.shape[0],
            f"negative has {negative.shape[0]} rows, expected {positive.shape[0]} (one a positive)",
        )
        if usable is not None:
            self.require(usable.shape == negative.shape, "usable must have the shape of negative")
            self.require(usable.dtype == torch.bool, "usable must be bool")

    def order(self, order: Tensor | None, ids: Tensor) -> None:
        """Positions sorted by id, equal ids by position."""
        if order is None:
            return
        n = ids.numel()
        self.index("order", order)
        self.require(
            order.numel() == n, f"order has {order.numel()} entries, expected {n} (one a candidate)"
        )
        self.ids("order", order, n)
        sorted_ids = ids.reshape(-1)[order]
        ahead = (sorted_ids[:-1] < sorted_ids[1:]) | (
            (sorted_ids[:-1] == sorted_ids[1:]) & (order[:-1] < order[1:])
        )
        bad = (~ahead).nonzero().flatten()
        if bad.numel():
            self.require(False, f"order does not sort the ids at entry {int(bad[0]) + 1}")


def flat_pairs(pairs: Sequence[Pair]) -> tuple[list[int], list[float]]:
    """Pairs as the schemas take them: three numbers a pair, and the weights."""
    numbers = [n for p in pairs for n in (p.query, p.candidate, p.width)]
    return numbers, [float(p.weight) for p in pairs]
