from __future__ import annotations

import os
import subprocess
import sys
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkgc_cli import ops
from mmkgc_cli.ops import Metric, Pair, rank_candidates
from mmkgc_cli.ops.rank_candidates import reference
from tests.ops.conftest import native, skip_unread
from tests.ops.ranks import Counts, problem, same


def by_hand(p: dict[str, Any]) -> Counts:
    """Counts from the whole score matrix, one target at a time, in float64."""
    scale = p.get("scale")
    scores = ops.score_rows(
        p["queries"].double()[:, None],
        p["table"].double()[None],
        p["metric"],
        p["pairs"],
        None if scale is None else scale.double()[:, None],
    )
    better, equal = [], []
    for q in range(len(p["queries"])):
        filtered = set(p["filter_ids"][p["filter_ptr"][q] : p["filter_ptr"][q + 1]].tolist())
        for target in p["target_ids"][p["target_ptr"][q] : p["target_ptr"][q + 1]].tolist():
            others = [
                float(scores[q, c])
                for c in range(len(p["table"]))
                if c != target and c not in filtered
            ]
            own = float(scores[q, target])
            better.append(sum(s > own for s in others))
            equal.append(sum(s == own for s in others))
    return (
        torch.tensor(better, dtype=torch.int64),
        torch.tensor(equal, dtype=torch.int64),
        (~scores.isfinite()).sum(1),
    )


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("n_candidates", [1, 2, 63, 64, 65, 129, 151])
@pytest.mark.parametrize("width", [2, 6, 130])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_counts_are_those_of_the_whole_score_matrix(
    backend: str, metric: Metric, n_candidates: int, width: int, dtype: torch.dtype
) -> None:
    p = problem(17, n_candidates, width, seed=width + n_candidates, dtype=dtype)
    if metric is Metric.modulus:  # roots leave the grid: keep one axis so that they are exact
        p["queries"][:, width // 2 :] = 0
        p["table"][:, width // 2 :] = 0
    p["metric"] = metric
    expected = by_hand(p)
    assert n_candidates < 63 or width > 6 or bool(expected[1].sum()), "no ties to test"
    assert same(rank_candidates(**p), expected)


@pytest.mark.parametrize("metric", [Metric.dot, Metric.l1, Metric.modulus])
def test_repeated_blocks_and_weights_add_up(backend: str, metric: Metric) -> None:
    p = problem(9, 70, 8, seed=3)
    p["metric"] = metric
    p["pairs"] = [Pair(0, 4, 4, 1.0), Pair(4, 0, 4, 0.5), Pair(2, 2, 2, 2.0)]
    if metric is Metric.modulus:
        for side in ("queries", "table"):
            p[side][:, [2, 3, 6, 7]] = 0
            p[side][:, 3] = 0
    assert same(rank_candidates(**p), by_hand(p))


@pytest.mark.parametrize("metric", Metric)
def test_the_scale_of_a_query_multiplies_its_candidates(backend: str, metric: Metric) -> None:
    p = problem(9, 70, 6, seed=4)
    p["metric"] = metric
    p["scale"] = torch.randint(-2, 3, (9, 6)).float()
    if metric is Metric.modulus:
        p["queries"][:, 3:] = 0
        p["table"][:, 3:] = 0
    assert same(rank_candidates(**p), by_hand(p))


@pytest.mark.parametrize("metric", Metric)
@given(
    n=st.integers(1, 200), width=st.integers(1, 150).map(lambda w: 2 * w), seed=st.integers(0, 99)
)
@settings(max_examples=25)
def test_equal_rows_tie_at_any_position(metric: Metric, n: int, width: int, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    row = torch.randn(1, width, generator=rng)
    queries = torch.randn(3, width, generator=rng)
    ids = torch.arange(n).repeat(3)
    ptr = torch.arange(4) * n
    none = torch.zeros(4, dtype=torch.int64)
    p = (queries, row.expand(n, width), ptr, ids, none, ids[:0])
    better, equal, _ = rank_candidates(*p, metric=metric, pairs=ops.whole_row(width))
    assert better.tolist() == [0] * (3 * n)
    assert equal.tolist() == [n - 1] * (3 * n)


@native
@pytest.mark.parametrize("metric", Metric)
def test_native_and_reference_agree_up_to_rounding(metric: Metric) -> None:
    torch.manual_seed(0)
    p = problem(50, 400, 64, seed=5)
    p["queries"], p["table"], p["metric"] = torch.randn(50, 64), torch.randn(400, 64), metric
    p["target_ptr"], p["target_ids"] = torch.arange(51), torch.randint(400, (50,))
    better, equal, _ = rank_candidates(**p)
    expected, *_ = by_hand(p)
    assert (better - expected).abs().max() <= 1
    assert equal.sum() == 0


def test_the_target_is_never_counted_filtered_or_not(backend: str) -> None:
    p = problem(2, 5, 4, seed=0)
    p["queries"], p["table"] = torch.zeros(2, 4), torch.zeros(5, 4)
    p["target_ptr"], p["target_ids"] = torch.tensor([0, 2, 3]), torch.tensor([0, 3, 3])
    p["filter_ptr"], p["filter_ids"] = torch.tensor([0, 2, 2]), torch.tensor([1, 3])
    better, equal, _ = rank_candidates(**p)
    assert better.tolist() == [0, 0, 0]
    # Query 0 filters 1 and 3: target 0 is compared with 2 and 4, target 3 with 0, 2 and 4. Query 1
    # filters nothing.
    assert equal.tolist() == [2, 3, 4]


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("metric", Metric)
def test_non_finite_scores_are_counted(backend: str, metric: Metric, bad: float) -> None:
    p = problem(4, 70, 6, seed=1)
    p["metric"] = metric
    p["queries"] += 0.125 * (p["queries"] == 0)  # inf * 0 would be counted as well, as NaN
    p["table"][[3, 69], 1] = bad
    assert rank_candidates(**p)[2].tolist() == [2, 2, 2, 2]


def test_sums_that_overflow_are_counted_as_not_finite(backend: str) -> None:
    p = problem(2, 5, 4, seed=1)
    p["queries"], p["table"] = torch.full((2, 4), 1e38), torch.full((5, 4), 1e38)
    assert rank_candidates(**p)[2].tolist() == [5, 5]


@pytest.mark.parametrize(("n_queries", "n_candidates", "width"), [(0, 5, 4), (3, 0, 4), (3, 5, 0)])
def test_empty_inputs_are_fine(backend: str, n_queries: int, n_candidates: int, width: int) -> None:
    p = problem(n_queries, n_candidates, width, seed=0)
    assert same(rank_candidates(**p), by_hand(p))


def test_strided_inputs_count_as_their_copies(backend: str) -> None:
    p = problem(12, 80, 6, seed=2)
    strided: dict[str, Any] = {
        key: torch.stack([value, value], -1)[..., 0] if isinstance(value, Tensor) else value
        for key, value in p.items()
    }
    strided["table"] = p["table"].t().contiguous().t()
    assert not strided["queries"].is_contiguous()
    assert same(rank_candidates(**strided), rank_candidates(**p))


def change(**changes: Callable[[Any], Any] | Any) -> Callable[[dict[str, Any]], None]:
    def apply(p: dict[str, Any]) -> None:
        for key, value in changes.items():
            p[key] = value(p[key]) if callable(value) else value

    return apply


def set_first(value: int) -> Callable[[Tensor], Tensor]:
    return lambda ids: torch.cat([torch.tensor([value]), ids[1:]])


MISTAKES = [
    (change(queries=lambda q: q[0]), "queries has 1 dimensions, expected 2"),
    (change(table=lambda t: t.double()), "table and queries must have the same dtype"),
    (change(queries=lambda q: q.half()), "queries must be float32 or float64"),
    (change(target_ids=lambda i: i.int()), "target_ids must be int64"),
    (change(target_ids=set_first(70)), r"target_ids\[0\] is 70, outside 0..69"),
    (change(filter_ids=set_first(-1)), r"filter_ids\[0\] is -1, outside 0..69"),
    (change(target_ptr=lambda p: p[:-1]), r"target_ptr has 6 entries, expected 7 \(queries \+ 1\)"),
    (change(filter_ptr=lambda p: p + 1), r"filter_ptr runs from 1 to \d+, expected 0 to \d+"),
    (
        change(target_ptr=torch.tensor([0, 2, 1, 2, 2, 2, 2]), target_ids=torch.tensor([0, 1])),
        "target_ptr decreases at entry 2",
    ),
    (
        change(filter_ptr=torch.tensor([0, 0, 2, 2, 2, 2, 2]), filter_ids=torch.tensor([4, 4])),
        "filter_ids of query 1 are not strictly ascending",
    ),
    (change(pairs=[]), "pairs holds 0 numbers for 0 weights"),
    (change(pairs=[Pair(0, 2, 5)]), r"pair 0 \(0, 2, 5\) exceeds queries of width 6"),
    (change(pairs=[Pair(2**63 - 1, 0, 1)]), r"pair 0 \(\d+, 0, 1\) exceeds"),
    (change(pairs=[Pair(0, 0, 2**63 - 1)]), r"pair 0 \(0, 0, \d+\) exceeds"),
    (
        change(metric=Metric.modulus, pairs=[Pair(0, 0, 3)]),
        r"pair 0 has odd width 3, expected an even width",
    ),
    (change(metric=7), r"metric is 7, expected 0 \(dot\)"),
    (
        lambda p: p.update(scale=torch.ones(5, 6)),
        r"scale must be \[6, 6\] with the dtype of queries",
    ),
]


@pytest.mark.parametrize(("spoil", "message"), MISTAKES)
def test_errors_of_arguments_are_equal_on_both_backends(
    backend: str, spoil: Callable[[dict[str, Any]], None], message: str
) -> None:
    skip_unread(backend, message)
    p = problem(6, 70, 6, seed=6)
    spoil(p)
    with pytest.raises(RuntimeError, match=f"rank_candidates: {message}"):
        rank_candidates(**p)


@native
@pytest.mark.parametrize("threads", [1, 2, 3])
def test_counts_do_not_depend_on_the_number_of_threads(threads: int) -> None:
    p = problem(300, 500, 32, seed=7)
    p["queries"], p["table"] = torch.randn(300, 32), torch.randn(500, 32)
    expected = rank_candidates(**p)
    torch.set_num_threads(threads)
    assert same(rank_candidates(**p), expected)


def test_the_reference_uses_blocks_that_do_not_change_counts(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    p = problem(30, 90, 8, seed=8)
    args = [p[k] for k in ("queries", "table", "target_ptr", "target_ids")]
    args += [p["filter_ptr"], p["filter_ids"], int(Metric.l1), [0, 0, 8], [1.0]]
    expected = reference(*args)
    # The function of the same name hides the module in attribute access.
    monkeypatch.setattr(sys.modules[reference.__module__], "REFERENCE_BUDGET", 200)
    assert same(reference(*args), expected)


@native
def test_opcheck() -> None:
    p = problem(6, 70, 6, seed=9)
    args = [p[k] for k in ("queries", "table", "target_ptr", "target_ids")]
    args += [p["filter_ptr"], p["filter_ids"], int(p["metric"]), [0, 0, 6], [1.0]]
    torch.library.opcheck(torch.ops.mmkgc.rank_candidates.default, tuple(args))


@pytest.mark.parametrize("switch", ["1", "0"], ids=["native", "reference"])
def test_memory_does_not_grow_with_queries_times_candidates(switch: str) -> None:
    code = """
import resource, torch
from mmkgc_cli.ops import Metric, rank_candidates, whole_row
n = 12_000
ptr, ids, none = torch.arange(n + 1), torch.arange(n), torch.zeros(n + 1, dtype=torch.int64)
rows = torch.randn(n, 2)
def peak():
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
def rank(q):
    rank_candidates(rows[:q], rows, ptr[:q + 1], ids[:q], none[:q + 1], ids[:0],
                    metric=Metric.l1, pairs=whole_row(2))
rank(1000)
before = peak()
rank(n)
print(peak() - before)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True, text=True, check=True, env={**os.environ, "MMKGC_NATIVE": switch},
    )  # fmt: skip
    unit = 1 if sys.platform == "darwin" else 1024
    # The queries grow 12 times; the matrix of 12,000 x 12,000 scores alone would take 576 MB.
    assert int(done.stdout) * unit < 250e6
