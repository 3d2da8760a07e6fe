"""Filtered ranking of targets among all candidates, without a score matrix.

`rank_candidates` picks the native kernel or the reference; both give counts from which optimistic,
realistic and pessimistic ranks follow (optimistic = 1 + better, pessimistic = optimistic + equal).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from mmkgc_cli.ops import _native
from mmkgc_cli.ops._arguments import Checks, flat_pairs
from mmkgc_cli.ops.metric import Metric, Pair, score_rows

NAME = "rank_candidates"

# Scores and differences the reference holds at once (elements, not bytes).
REFERENCE_BUDGET = 1 << 24


def rank_candidates(
    queries: Tensor,
    table: Tensor,
    target_ptr: Tensor,
    target_ids: Tensor,
    filter_ptr: Tensor,
    filter_ids: Tensor,
    metric: Metric,
    pairs: Sequence[Pair],
    scale: Tensor | None = None,
) -> tuple[Tensor, Tensor, Tensor]:
    """Counts, for every target, the candidates that score above it and the same as it.

    Several targets may share a query (all true tails of one head and relation), and then they
    share its filter. Neither the target itself nor any filtered candidate is counted.

    Args:
        queries: ``[Q, Dq]`` float32 or float64.
        table: ``[E, Dc]`` candidate rows of the same dtype. The CUDA kernels also take float16 and
            bfloat16 beside float32 queries; they compute in float32.
        target_ptr: ``[Q + 1]`` int64 row pointer into `target_ids`.
        target_ids: ``[T]`` int64 candidate ids, any number a query.
        filter_ptr: ``[Q + 1]`` int64 row pointer into `filter_ids`.
        filter_ids: ``[F]`` int64 candidate ids, strictly ascending within a row.
        metric: of all pairs.
        pairs: terms of the score; see `Pair`.
        scale: ``[Q, Dc]`` multiplied into the candidates, or None.

    Returns:
        ``better [T]``, ``equal [T]`` and ``nonfinite [Q]``, int64: candidates above the target,
        other candidates level with it, and candidates (filtered ones included) whose score is NaN
        or infinite. Counts of a query with non-finite scores mean nothing.

    Raises:
        RuntimeError: on wrong shapes, dtypes, pointers or ids, naming the argument.
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
_check = _CHECKS.require


def _check_rows(ptr: Tensor, name: str, rows: int, ids: int) -> None:
    _check(
        ptr.numel() == rows + 1,
        f"{name} has {ptr.numel()} entries, expected {rows + 1} (queries + 1)",
    )
    first, last = int(ptr[0]), int(ptr[-1])
    _check(first == 0 and last == ids, f"{name} runs from {first} to {last}, expected 0 to {ids}")
    steps = (ptr[1:] < ptr[:-1]).nonzero()
    _check(
        steps.numel() == 0, f"{name} decreases at entry {int(steps[0]) + 1 if len(steps) else 0}"
    )


def _check_arguments(
    queries: Tensor,
    table: Tensor,
    target_ptr: Tensor,
    target_ids: Tensor,
    filter_ptr: Tensor,
    filter_ids: Tensor,
    metric: int,
    pairs: Sequence[int],
    weights: Sequence[float],
    scale: Tensor | None,
) -> list[Pair]:
    """The checks of ``checks/rank_arguments.h``, word for word (a test compares them)."""
    c = _CHECKS
    c.matrix("queries", queries)
    c.matrix("table", table)
    c.real("queries", queries)
    c.same_dtype("table", table, "queries", queries)
    n, width, n_candidates = queries.shape[0], table.shape[1], table.shape[0]
    if scale is not None:
        c.matrix("scale", scale)
        _check(
            scale.dtype == queries.dtype and tuple(scale.shape) == (n, width),
            f"scale must be [{n}, {width}] of the queries' dtype",
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
    row_of = _row_of(filter_ptr)
    level = (row_of[1:] == row_of[:-1]) & (filter_ids[1:] <= filter_ids[:-1])
    at = level.nonzero().flatten()
    if at.numel():
        row = int(row_of[int(at[0])])
        _check(False, f"filter_ids of query {row} are not strictly ascending")
    return terms


def _row_of(ptr: Tensor) -> Tensor:
    """The row of each entry behind a row pointer."""
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
    """`rank_candidates` in torch, in blocks whose size does not depend on Q times E."""
    terms = _check_arguments(
        queries, table, target_ptr, target_ids, filter_ptr, filter_ids, metric, pairs, weights,
        scale,
    )  # fmt: skip

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
    """`rank_candidates` for scores that are made elsewhere, some queries at a time.

    Args:
        scores_of: gives the scores ``[stop - start, E]`` of the queries `start` to `stop`; a
            target's own is looked up among them.
        block: queries asked for at once.
        target_ptr: as in `rank_candidates`, and so on.
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
        # The sweep meets the target itself unless the filter takes it out.
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
    """All scores of a few queries, ``[b, E]``; differences are held a slice of E at a time."""
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
    return (
        torch.empty_like(target_ids),
        torch.empty_like(target_ids),
        target_ids.new_empty(queries.shape[0]),
    )


if _native.library().loaded:
    # Counts carry no gradient, so there is no autograd formula to register.
    torch.library.register_fake(f"mmkgc::{NAME}")(_fake)
