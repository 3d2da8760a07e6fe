"""Filtered ranking of targets among all candidates, without a score matrix.

The counts determine optimistic, realistic and pessimistic ranks: optimistic = 1 + better,
pessimistic = optimistic + equal, and realistic is their mean.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops._arguments import Checks, flat_pairs
from mmkgc_cli.ops._autograd import register
from mmkgc_cli.ops.metric import Metric, Pair, score_rows

NAME = "rank_candidates"

# Maximum number of scores or differences that the reference holds (elements, not bytes).
REFERENCE_BUDGET = 1 << 24


def rank_candidates(
    queries: Tensor,
    table: Tensor,
    target_ptr: Tensor,
    target_ids: Tensor,
    filter_ptr: Tensor,
    filter_ids: Tensor,
    *,
    metric: Metric,
    pairs: Sequence[Pair],
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, for every target, the candidates with a higher and with an equal score.

    Several targets may share a query (all true tails of one head and relation) and with it the
    filter. Neither the target itself nor a filtered candidate is counted.

    Args:
        queries: ``[Q, Dq]`` float32 or float64.
        table: ``[E, Dc]`` candidate rows of the same dtype. The CUDA kernels also accept float16
            and bfloat16 with float32 queries; they compute in float32.
        target_ptr: ``[Q + 1]`` int64 row pointer into `target_ids`.
        target_ids: ``[T]`` int64 candidate ids, any number per query.
        filter_ptr: ``[Q + 1]`` int64 row pointer into `filter_ids`.
        filter_ids: ``[F]`` int64 candidate ids, strictly ascending within a row.
        metric: of all pairs.
        pairs: the terms of the score; see `Pair`.
        scale: ``[Q, Dc]`` multiplied into the candidates, or None.

    Returns:
        ``better [T]``, ``equal [T]`` and ``nonfinite [Q]``, int64: the candidates above the target,
        the other candidates with the same score, and all candidates (including filtered ones) with
        a NaN or infinite score. The counts of a query with non-finite scores are meaningless.

    Raises:
        RuntimeError: on wrong shapes, dtypes, pointers or ids; the message names the argument.
    """
    flat, weights = flat_pairs(pairs)
    args = (queries, table, target_ptr, target_ids, filter_ptr, filter_ids, int(metric))
    with torch.no_grad():
        if _native.has_kernel(NAME, queries.device.type):
            better, equal, nonfinite = torch.ops.mmkgc.rank_candidates(*args, flat, weights, scale)
        else:
            better, equal, nonfinite = reference(*args, flat, weights, scale)
    return better, equal, nonfinite


_CHECKS = Checks(NAME)


def _check_rows(ptr: Tensor, name: str, rows: int, ids: int) -> None:
    _CHECKS.require(
        ptr.numel() == rows + 1,
        f"{name} has {ptr.numel()} entries, expected {rows + 1} (queries + 1)",
    )
    first, last = int(ptr[0]), int(ptr[-1])
    _CHECKS.require(
        first == 0 and last == ids, f"{name} runs from {first} to {last}, expected 0 to {ids}"
    )
    falls = (ptr[1:] < ptr[:-1]).nonzero()
    if falls.numel():
        _CHECKS.require(False, f"{name} decreases at entry {int(falls[0]) + 1}")


def _row_of(ptr: Tensor) -> Tensor:
    """The row of each entry of a ragged array."""
    rows = torch.arange(ptr.numel() - 1, device=ptr.device)
    return rows.repeat_interleave(ptr[1:] - ptr[:-1])


def reference(
    queries: Tensor,
    table: Tensor,
    target_ptr: Tensor,
    target_ids: Tensor,
    filter_ptr: Tensor,
    filter_ids: Tensor,
    metric: int,
    pairs: Sequence[int],
    weights: Sequence[float],
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """`rank_candidates` in torch, in blocks of bounded memory."""
    c = _CHECKS
    c.matrix("queries", queries)
    c.matrix("table", table)
    c.real("queries", queries)
    c.same_dtype("table", table, "queries", queries)
    n, width, n_candidates = queries.shape[0], table.shape[1], table.shape[0]
    if scale is not None:
        c.matrix("scale", scale)
        c.require(
            scale.dtype == queries.dtype and tuple(scale.shape) == (n, width),
            f"scale must be [{n}, {width}] with the dtype of queries",
        )
    for name, index in (
        ("target_ptr", target_ptr),
        ("target_ids", target_ids),
        ("filter_ptr", filter_ptr),
        ("filter_ids", filter_ids),
    ):
        c.index(name, index)
    terms = c.pairs(pairs, weights, c.metric(metric), queries.shape[1], width)
    _check_rows(target_ptr, "target_ptr", n, target_ids.numel())
    _check_rows(filter_ptr, "filter_ptr", n, filter_ids.numel())
    c.ids("target_ids", target_ids, n_candidates)
    c.ids("filter_ids", filter_ids, n_candidates)
    filter_row = _row_of(filter_ptr)
    repeated = (filter_row[1:] == filter_row[:-1]) & (filter_ids[1:] <= filter_ids[:-1])
    bad = repeated.nonzero().flatten()
    if bad.numel():
        query = int(filter_row[int(bad[0])])
        c.require(False, f"filter_ids of query {query} are not strictly ascending")

    def scores_of(start: int, stop: int) -> Tensor:
        factor = None if scale is None else scale[start:stop]
        return _score_block(queries[start:stop], table, Metric(metric), terms, factor)

    block = max(1, REFERENCE_BUDGET // max(1, 4 * table.shape[0]))
    return rank_scores(scores_of, block, target_ptr, target_ids, filter_ptr, filter_ids)


def rank_scores(
    scores_of: Callable[[int, int], Tensor],
    block: int,
    target_ptr: Tensor,
    target_ids: Tensor,
    filter_ptr: Tensor,
    filter_ids: Tensor,
) -> tuple[Tensor, Tensor, Tensor]:
    """`rank_candidates` for scores computed by a function, a block of queries at a time.

    Args:
        scores_of: returns the scores ``[stop - start, E]`` of the queries `start` to `stop`; the
            scores of the targets are read from them.
        block: number of queries per call.
        target_ptr: see `rank_candidates`, as for the other arguments.
        target_ids: ``[T]`` candidate ids.
        filter_ptr: row pointer into `filter_ids`.
        filter_ids: ``[F]`` candidate ids.
    """
    queries = target_ptr.numel() - 1
    better = torch.zeros_like(target_ids)
    equal = torch.zeros_like(target_ids)
    nonfinite = target_ids.new_zeros(queries)
    for start in range(0, queries, block):
        stop = min(start + block, queries)
        scores = scores_of(start, stop)
        nonfinite[start:stop] = (~scores.isfinite()).sum(1)
        t0, t1 = int(target_ptr[start]), int(target_ptr[stop])
        f0, f1 = int(filter_ptr[start]), int(filter_ptr[stop])
        target_row = _row_of(target_ptr[start : stop + 1])
        filter_row = _row_of(filter_ptr[start : stop + 1])
        ids = target_ids[t0:t1]
        target_scores = scores[target_row, ids]
        kept = torch.ones_like(scores, dtype=torch.bool)
        kept[filter_row, filter_ids[f0:f1]] = False
        # The comparison below includes the target itself unless it is filtered.
        itself = kept[target_row, ids].to(torch.int64)
        per_chunk = max(1, REFERENCE_BUDGET // max(1, scores.shape[1]))
        for a in range(0, ids.numel(), per_chunk):
            b = min(a + per_chunk, ids.numel())
            rows = target_row[a:b]
            level = target_scores[a:b, None]
            better[t0 + a : t0 + b] = ((scores[rows] > level) & kept[rows]).sum(1)
            equal[t0 + a : t0 + b] = ((scores[rows] == level) & kept[rows]).sum(1) - itself[a:b]
    return better, equal, nonfinite


def _score_block(
    queries: Tensor, table: Tensor, metric: Metric, pairs: Sequence[Pair], scale: Tensor | None
) -> Tensor:
    """All scores ``[b, E]`` of a block of queries; differences are held for a slice of E."""
    scores = queries.new_empty(queries.shape[0], table.shape[0])
    step = max(1, REFERENCE_BUDGET // max(1, queries.shape[0] * table.shape[1]))
    for start in range(0, table.shape[0], step):
        stop = min(start + step, table.shape[0])
        scores[:, start:stop] = score_rows(
            queries[:, None],
            table[None, start:stop],
            metric,
            pairs,
            None if scale is None else scale[:, None],
        )
    return scores


def _fake(
    queries: Tensor, table: Tensor, target_ptr: Tensor, target_ids: Tensor, *_: Any
) -> tuple[Tensor, Tensor, Tensor]:
    return (
        torch.empty_like(target_ids),
        torch.empty_like(target_ids),
        target_ids.new_empty(queries.shape[0]),
    )


register(NAME, {"": _fake})
