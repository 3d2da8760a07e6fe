"""Tests of the tiles of the CUDA kernels, which the CPU kernels run too."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkgc_cli.ops import Metric, Pair, rank_candidates
from mmkgc_cli.ops.rank_candidates import reference
from tests.ops.conftest import DEVICE, EMULATED, native, on_gpu, to_device
from tests.ops.ranks import Counts, arguments, problem, ragged, same

# Near the number of rows of a tile and of its columns in shared memory.
SIZES = st.sampled_from([0, 1, 15, 16, 17, 63, 64, 65, 129])
BLOCKS = st.tuples(st.integers(0, 9), st.integers(0, 9), SIZES, st.sampled_from([1.0, 0.5, -2.0]))


def by_reference(p: dict[str, Any]) -> Counts:
    return reference(*arguments(p))


def keep_exact(p: dict[str, Any]) -> None:
    """Sets the imaginary parts of all pairs to 0, for which roots of squares are exact."""
    for side, first in (("queries", "query"), ("table", "candidate")):
        for pair in p["pairs"]:
            begin = getattr(pair, first)
            p[side][:, begin + pair.width // 2 : begin + pair.width] = 0


@native
@pytest.mark.parametrize("metric", Metric)
@given(
    n_queries=SIZES,
    n_candidates=st.one_of(SIZES, st.just(450)),
    blocks=st.lists(BLOCKS, min_size=1, max_size=3),
    scaled=st.booleans(),
    dtype=st.sampled_from([torch.float32, torch.float64]),
    seed=st.integers(0, 99),
)
@settings(max_examples=40)
def test_counts_equal_the_reference_for_any_tile_size(
    metric: Metric,
    n_queries: int,
    n_candidates: int,
    blocks: list[tuple[int, int, int, float]],
    scaled: bool,
    dtype: torch.dtype,
    seed: int,
) -> None:
    parts = 2 if metric is Metric.modulus else 1
    pairs = [Pair(q, c, parts * width, weight) for q, c, width, weight in blocks]
    width = 9 + max(pair.width for pair in pairs)
    p = problem(n_queries, n_candidates, width, seed, dtype, filtered=n_candidates // 2)
    p["metric"], p["pairs"] = metric, pairs
    if metric is Metric.modulus:
        keep_exact(p)
    if scaled:
        p["scale"] = (p["queries"] * 8).remainder(5) - 2
    assert same(rank_candidates(**p), by_reference(p))


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("scaled", [False, True])
def test_copies_of_a_row_tie_in_all_tiles_and_blocks(
    backend: str, metric: Metric, scaled: bool
) -> None:
    rng = torch.Generator().manual_seed(1)
    n_queries, n_rows, copies, width = 70, 30, 15, 46
    which = torch.arange(n_rows).repeat(copies)[torch.randperm(n_rows * copies, generator=rng)]
    queries = torch.randn(n_queries, width, generator=rng)
    table = torch.randn(n_rows, width, generator=rng)[which]
    scale = torch.randn(n_queries, width, generator=rng) if scaled else None
    # All copies of one row are the targets of a query, and every fifth candidate is filtered.
    rows = [(which == q % n_rows).nonzero().flatten() for q in range(n_queries)]
    filters = [torch.arange(q % 5, len(which), 5) for q in range(n_queries)]
    target_ptr, target_ids = ragged(rows)
    filter_ptr, filter_ids = ragged(filters)
    pairs = [Pair(0, 0, 38, 0.7), Pair(20, 26, 20, 1.3)]  # weights whose products are rounded
    better, equal, _ = rank_candidates(
        queries, table, target_ptr, target_ids, filter_ptr, filter_ids, metric=metric, pairs=pairs,
        scale=scale,
    )  # fmt: skip
    for q, (row, filtered) in enumerate(zip(rows, filters, strict=True)):
        left = ~torch.isin(row, filtered)
        expected = left.sum() - left.long()  # a target that is left does not tie with itself
        begin, end = int(target_ptr[q]), int(target_ptr[q + 1])
        assert equal[begin:end].tolist() == expected.tolist()
        assert len(set(better[begin:end].tolist())) == 1


@pytest.mark.parametrize("metric", [Metric.dot, Metric.l1])
def test_queries_may_have_thousands_of_targets_or_none(backend: str, metric: Metric) -> None:
    p = problem(68, 150, 20, seed=3, filtered=60)
    rng = torch.Generator().manual_seed(3)
    lengths = {1: 3000, 66: 1000}
    p["target_ptr"], p["target_ids"] = ragged(
        [torch.randint(150, (lengths.get(q, 0),), generator=rng) for q in range(68)]
    )
    p["metric"] = metric
    assert same(rank_candidates(**p), by_reference(p))


@on_gpu
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_counts_of_16_bit_tables_equal_those_of_float32_tables(
    metric: Metric, scaled: bool, dtype: torch.dtype
) -> None:
    p = problem(70, 200, 50, seed=5)
    p["metric"] = metric
    if metric is Metric.modulus:
        keep_exact(p)
    if scaled:
        p["scale"] = (p["queries"] * 8).remainder(5) - 2
    assert torch.equal(p["table"].to(dtype).float(), p["table"])
    expected = by_reference(p)
    p = to_device({**p, "table": p["table"].to(dtype)})
    if EMULATED or metric in (Metric.dot, Metric.l1):  # the root of a GPU is not exact for squares
        assert same(to_device(rank_candidates(**p), torch.device("cpu")), expected)
    # With inexact scores, compare with the same kernel in float32.
    rng = torch.Generator().manual_seed(5)
    p["queries"] = torch.randn(70, 50, generator=rng).to(DEVICE)
    p["table"] = torch.randn(200, 50, generator=rng).to(DEVICE, dtype)
    assert same(rank_candidates(**p), rank_candidates(**{**p, "table": p["table"].float()}))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_a_16_bit_table_needs_float32_queries(backend: str, dtype: torch.dtype) -> None:
    p = problem(3, 5, 4, seed=0, dtype=torch.float64)
    p["table"] = p["table"].to(dtype)
    with pytest.raises(RuntimeError, match="rank_candidates: table and queries must have the same"):
        rank_candidates(**p)


@on_gpu
def test_too_many_pairs_or_columns_raise() -> None:
    p = to_device(problem(3, 5, 4, seed=0))
    p["pairs"] = 65 * [Pair(0, 0, 1)]
    with pytest.raises(RuntimeError, match="rank_candidates: there are 65 pairs, at most 64 on"):
        rank_candidates(**p)
    p = to_device(problem(3, 5, 1, seed=0))
    for name in ("queries", "table"):
        wide = {**p, name: p[name][:, :1].expand(-1, 2**25 + 1)}
        with pytest.raises(RuntimeError, match=f"{name} has 33554433 columns, at most 33554432 on"):
            rank_candidates(**wide)
