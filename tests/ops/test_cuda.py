"""The CUDA kernels against the reference implementations on the CPU.

They run on a GPU or in emulation (`make emulate`); tests that need a GPU are in
`test_cuda_graphs.py`.
"""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli import ops
from mmkgc_cli.ops import (
    MessageGraph,
    Metric,
    SideChoice,
    dense_gradient,
    filtered_negatives,
    rank_candidates,
    rgcn_propagate,
    rotate_score,
    sampled_score,
    table_adam,
)
from mmkgc_cli.ops._arguments import flat_pairs
from mmkgc_cli.ops._native import COMPOSED
from mmkgc_cli.ops.rank_candidates import reference as rank_reference
from mmkgc_cli.ops.rgcn_propagate import reference as rgcn_reference
from mmkgc_cli.ops.rotate_score import reference as rotate_reference
from mmkgc_cli.ops.sampled_score import reference as sampled_reference
from tests.ops import (
    losses,
    ranks,
    test_filtered_negatives,
    test_rgcn_propagate,
    test_rotate_score,
    test_sampled_score,
    test_table_adam,
)
from tests.ops.conftest import DEVICE, EMULATED, on_gpu, to_device

pytestmark = [pytest.mark.cuda]

DTYPES = [torch.float32, torch.float64]


def close(actual: Tensor, expected: Tensor, loose: float = 1e-4) -> bool:
    """Up to rounding, in float32 of sums of some hundred terms."""
    assert actual.device.type == DEVICE.type
    assert actual.dtype == expected.dtype
    expected = expected.detach()
    bound = 1e-10 if actual.dtype == torch.float64 else loose
    scale = max(1.0, float(expected.abs().max())) if expected.numel() else 1.0
    return torch.allclose(actual.cpu(), expected, rtol=bound, atol=bound * scale)


def weights_of(scores: Tensor) -> Tensor:
    return torch.linspace(-1, 2, scores.numel(), dtype=scores.dtype).view(scores.shape)


def gradients(scores: Tensor, inputs: list[Tensor]) -> list[Tensor]:
    return list(torch.autograd.grad(scores, inputs, weights_of(scores).to(scores.device)))


@on_gpu
@pytest.mark.parametrize("op", ops.OPS)
def test_every_op_has_a_cuda_kernel(op: str) -> None:
    by = COMPOSED.get(op)
    assert ops.backend_of(op, DEVICE.type) == (
        "native",
        f"as {by} and the loss" if by else "loaded",
    )


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("width", [2, 8, 62, 260, 264])
def test_sampled_scores_and_gradients(
    dtype: torch.dtype, metric: Metric, scaled: bool, width: int
) -> None:
    p = test_sampled_score.problem(metric, 19, 5, 150, width, scaled=scaled, dtype=dtype)
    numbers, weights = flat_pairs(p["pairs"])
    expected = sampled_reference(
        p["queries"],
        p["table"],
        p["ids"],
        p["corrupted_side"],
        int(metric),
        numbers,
        weights,
        p["scale"],
    )
    there = to_device(p)
    actual = sampled_score(**there)
    assert close(actual, expected)
    names = ["queries", "table", *(["scale"] if scaled else [])]
    for a, b in zip(
        gradients(actual, [there[n] for n in names]),
        gradients(expected, [p[n] for n in names]),
        strict=True,
    ):
        assert close(a, b)


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("dim", [1, 2, 31, 130, 132])
@pytest.mark.parametrize("ordered", [False, True])
def test_rotate_scores_and_gradients(dtype: torch.dtype, dim: int, ordered: bool) -> None:
    p = test_rotate_score.problem(batch=9, n=150, dim=dim, dtype=dtype)
    there = to_device(p)
    if ordered:
        there["order"] = there["ids"].flatten().argsort(stable=True)
    actual, expected = rotate_score(**there), rotate_reference(**p)
    assert close(actual, expected)
    for a, b in zip(
        gradients(actual, [there["table"], there["phases"]]),
        gradients(expected, [p["table"], p["phases"]]),
        strict=True,
    ):
        assert close(a, b)


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("width", [6, 8, 260])
@pytest.mark.parametrize("scaled", [False, True])
def test_table_adam_steps_as_torch_does(
    dtype: torch.dtype, metric: Metric, width: int, scaled: bool
) -> None:
    state, g = test_table_adam.problem(
        n=150, width=width, metric=metric, dtype=dtype, scaled=scaled
    )
    full = dense_gradient(g, state[0])
    expected = test_table_adam.torch_adam(*state, full, 3, 0.01, weight_decay=0.1)
    there: test_table_adam.State = to_device(state)
    squares = table_adam(*there, to_device(g), 3, 0.01, weight_decay=0.1)
    assert close(there[0], expected.detach())
    assert float(squares) == pytest.approx(float(full.double().square().sum()), rel=1e-4)


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", losses.LOSSES)
@pytest.mark.parametrize(("batch", "n"), [(0, 3), (1, 0), (6, 9), (300, 70)])
def test_losses_and_gradients(dtype: torch.dtype, name: str, batch: int, n: int) -> None:
    loss = losses.LOSSES[name]
    scores = losses.problem(batch, n, dtype)
    there = to_device(scores)
    actual = losses.with_gradients(loss.ours(*there), there[:2])
    expected = losses.with_gradients(loss.reference(*scores), scores[:2])
    assert all(close(a, b, 1e-5) for a, b in zip(actual, expected, strict=True))


@on_gpu
@pytest.mark.parametrize("choice", SideChoice)
@pytest.mark.parametrize("with_positive", [False, True])
def test_negatives_equal_those_of_the_cpu(choice: SideChoice, with_positive: bool) -> None:
    p, _ = test_filtered_negatives.problem(batch=40)
    p |= {"choice": choice, "with_positive": with_positive, "n": 37}
    actual, expected = filtered_negatives(**to_device(p)), filtered_negatives(**p)
    assert all(torch.equal(a.cpu(), b) for a, b in zip(actual, expected, strict=True))


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize(("queries", "candidates"), [(0, 5), (3, 1), (65, 129), (130, 64)])
def test_ranks_are_equal(dtype: torch.dtype, metric: Metric, queries: int, candidates: int) -> None:
    p = ranks.problem(queries, candidates, 6, 1, dtype)
    p["metric"] = metric
    exact = metric in (Metric.dot, Metric.l1)  # on the grid of the problem; roots are not
    if not exact:
        rng = torch.Generator().manual_seed(2)
        for name in ("queries", "table"):
            p[name] = torch.randn(p[name].shape, generator=rng, dtype=dtype)
    actual = to_device(rank_candidates(**to_device(p)), torch.device("cpu"))
    expected = rank_reference(*ranks.arguments(p))
    if exact or dtype == torch.float64:
        assert ranks.same(actual, expected)
    else:  # two scores in some ten thousand may lie within a rounding
        assert sum(int((a - b).abs().sum()) for a, b in zip(actual, expected, strict=True)) <= 2


@on_gpu
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32, torch.float64])
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("scaled", [False, True])
def test_equal_rows_tie_at_any_position(dtype: torch.dtype, metric: Metric, scaled: bool) -> None:
    rng = torch.Generator().manual_seed(0)
    wide = torch.float64 if dtype == torch.float64 else torch.float32
    n, each, width = 70, 3, 46
    rows = torch.randn(n, width, generator=rng).to(dtype)
    place = torch.randperm(n * each, generator=rng)
    table = torch.empty(n * each, width, dtype=dtype)
    table[place] = rows.repeat(each, 1)
    none = torch.zeros(n + 1, dtype=torch.int64)
    p = {
        "queries": torch.randn(n, width, generator=rng, dtype=wide),
        "table": table,
        "target_ptr": torch.arange(n + 1),
        "target_ids": place[:n],
        "filter_ptr": none,
        "filter_ids": none[:0],
        "metric": metric,
        "pairs": ops.whole_row(width),
        "scale": torch.randn(n, width, generator=rng, dtype=wide) if scaled else None,
    }
    _, equal, nonfinite = rank_candidates(**to_device(p))
    assert (equal == each - 1).all()
    assert not nonfinite.any()


@on_gpu
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("bases", [1, 2, 3, 8])
@pytest.mark.parametrize("restricted", [False, True])
def test_neighbour_sums_and_gradients(dtype: torch.dtype, bases: int, restricted: bool) -> None:
    x, a, graph = test_rgcn_propagate.problem(30, 3, 700, 36, bases, dtype)
    rows = torch.tensor([3, 0, 29, 11]) if restricted else None
    sources = graph.with_neighbours(rows) if rows is not None else None
    if sources is not None:
        x = x.detach()[sources].requires_grad_()
    arguments = test_rgcn_propagate.arguments(graph)
    expected = rgcn_reference(x, a, *arguments, rows, sources)
    there: tuple[Tensor, Tensor, MessageGraph, Any, Any]
    there = to_device([x, a, graph, rows, sources])
    actual = rgcn_propagate(*there)
    assert close(actual, expected)
    for left, right in zip(
        gradients(actual, [there[0], there[1]]), gradients(expected, [x, a]), strict=True
    ):
        assert close(left, right)


@on_gpu
def test_results_are_bitwise_reproducible() -> None:
    p = to_device(test_rotate_score.problem(batch=40, n=70, dim=34, dtype=torch.float32))
    p["ids"][:, ::3] = 7  # one entity takes a third of all
    x, a, graph = to_device(list(test_rgcn_propagate.problem(30, 3, 700, 36, 2, torch.float32)))
    for _ in range(2 if EMULATED else 20):
        results = []
        for _ in range(2):
            scores = rotate_score(**p)
            sums = rgcn_propagate(x, a, graph)
            results.append(
                [
                    scores,
                    *gradients(scores, [p["table"], p["phases"]]),
                    sums,
                    *gradients(sums, [x, a]),
                ]
            )
        assert all(torch.equal(left, right) for left, right in zip(*results, strict=True))


@on_gpu
@pytest.mark.parametrize("metric", Metric)
def test_gradients_equal_finite_differences(metric: Metric) -> None:
    p = to_device(test_sampled_score.problem(metric, entities=5, batch=3, n=5, width=4))

    def score(queries: Tensor, table: Tensor) -> Tensor:
        return sampled_score(**{**p, "queries": queries, "table": table})

    assert torch.autograd.gradcheck(score, [p["queries"], p["table"]])


@on_gpu
@pytest.mark.parametrize("n", [0, 1, 33, 4096, 4097, 20000])
def test_both_sorts_of_candidates_are_stable(n: int) -> None:
    p, _ = test_filtered_negatives.problem(batch=max(n, 1), triples=3 * n + 60)
    p |= {"n": 1, "positives": p["positives"][:n]}
    ids, *_, order = to_device(filtered_negatives(**to_device(p)), torch.device("cpu"))
    assert torch.equal(order, ids.flatten().argsort(stable=True))


@on_gpu
def test_a_step_does_not_depend_on_the_alignment_of_the_state() -> None:
    """Views at addresses that are not multiples of 16 bytes."""
    state, g = to_device(test_table_adam.problem(width=8, dtype=torch.float32))
    expected = test_table_adam.cloned(state)
    table_adam(*expected, g, 1, 0.1)
    table, exp_avg, exp_avg_sq = shifted = [
        torch.empty(x.numel() + 1, device=x.device)[1:].view_as(x).copy_(x) for x in state
    ]
    table_adam(table, exp_avg, exp_avg_sq, g, 1, 0.1)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(shifted, expected, strict=True))


@on_gpu
def test_each_op_runs_once() -> None:
    """All kernels in one short run, for compute-sanitizer (`make gpu`)."""
    p = to_device(test_rotate_score.problem(40, 5, 12, 70, 36, torch.float32))
    scores = rotate_score(**p)
    gradients(scores, [p["table"], p["phases"]])
    for metric in Metric:
        for scaled in (False, True):
            s = to_device(
                test_sampled_score.problem(metric, n=150, scaled=scaled, dtype=torch.float32)
            )
            inputs = [s["queries"], s["table"], *([s["scale"]] if scaled else [])]
            gradients(sampled_score(**s), inputs)
        state: test_table_adam.State
        state, g = to_device(test_table_adam.problem(metric=metric, dtype=torch.float32))
        table_adam(*state, g, 1, 0.1)
        r = to_device(ranks.problem(70, 130, 6, 0))
        rank_candidates(**{**r, "metric": metric})
    for loss in losses.LOSSES.values():
        there = to_device(losses.problem(20, 33, torch.float32))
        losses.with_gradients(loss.ours(*there), there[:2])
    negatives, _ = test_filtered_negatives.problem()
    filtered_negatives(**to_device(negatives))
    x, a, graph = to_device(list(test_rgcn_propagate.problem(30, 3, 900, 36, 3, torch.float32)))
    gradients(rgcn_propagate(x, a, graph), [x, a])
    if DEVICE.type == "cuda":
        torch.cuda.synchronize()
