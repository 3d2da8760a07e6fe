"""Problems for the tests of ranking, and the comparison of counts."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkgc_cli import ops
from mmkgc_cli.ops import Metric
from mmkgc_cli.ops._arguments import flat_pairs

Counts = tuple[Tensor, Tensor, Tensor]


def ragged(rows: list[Tensor]) -> tuple[Tensor, Tensor]:
    lengths = torch.tensor([0, *map(len, rows)])
    ids = torch.cat(rows) if rows else torch.empty(0)
    return lengths.cumsum(0), ids.to(torch.int64)


def problem(
    n_queries: int,
    n_candidates: int,
    width: int,
    seed: int,
    dtype: torch.dtype = torch.float32,
    filtered: int = 7,
) -> dict[str, Any]:
    """Random rows of multiples of 1/8, for which float sums are exact and ties are common."""
    rng = torch.Generator().manual_seed(seed)

    def grid(*shape: int) -> Tensor:
        return (torch.randn(*shape, generator=rng, dtype=dtype) * 4).round() / 8

    def some(most: int) -> Tensor:
        count = int(torch.randint(most + 1, (), generator=rng))
        return torch.randperm(n_candidates, generator=rng)[:count]

    target_ptr, target_ids = ragged([some(3) for _ in range(n_queries)])
    filter_ptr, filter_ids = ragged([some(filtered).sort().values for _ in range(n_queries)])
    return {
        "queries": grid(n_queries, width),
        "table": grid(n_candidates, width),
        "target_ptr": target_ptr,
        "target_ids": target_ids,
        "filter_ptr": filter_ptr,
        "filter_ids": filter_ids,
        "metric": Metric.dot,
        "pairs": ops.whole_row(width),
    }


def same(a: Counts, b: Counts) -> bool:
    return all(torch.equal(x, y) for x, y in zip(a, b, strict=True))


def arguments(p: dict[str, Any]) -> tuple[Any, ...]:
    """The arguments of the schema."""
    names = ("queries", "table", "target_ptr", "target_ids", "filter_ptr", "filter_ids")
    numbers, weights = flat_pairs(p["pairs"])
    return (*(p[name] for name in names), int(p["metric"]), numbers, weights, p.get("scale"))
