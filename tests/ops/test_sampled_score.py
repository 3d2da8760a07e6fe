from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkgc_cli.ops import Metric, Pair, sampled_score, score_rows
from mmkgc_cli.ops._arguments import flat_pairs
from mmkgc_cli.ops.sampled_score import reference
from tests.ops.conftest import EMULATED, native


def problem(
    metric: Metric,
    entities: int = 19,
    batch: int = 5,
    n: int = 9,
    width: int = 6,
    sides: int = 2,
    scaled: bool = False,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=dtype).requires_grad_()

    ids = torch.randint(entities, (batch, n), generator=rng) if entities else torch.empty(batch, 0)
    return {
        "queries": normal(sides, batch, width),
        "table": normal(entities, width),
        "ids": ids.long(),
        "corrupted_side": torch.randint(sides, tuple(ids.shape), generator=rng, dtype=torch.int8),
        "metric": metric,
        "pairs": [Pair(0, 0, width)],
        "scale": normal(sides, batch, width) if scaled else None,
    }


def by_hand(p: dict[str, Any]) -> Tensor:
    """One score at a time."""
    rows = []
    for b in range(p["ids"].shape[0]):
        for i in range(p["ids"].shape[1]):
            side = int(p["corrupted_side"][b, i])
            scale = None if p["scale"] is None else p["scale"][side, b]
            row = p["table"][p["ids"][b, i]]
            rows.append(score_rows(p["queries"][side, b], row, p["metric"], p["pairs"], scale))
    return torch.stack(rows).view(p["ids"].shape) if rows else p["table"].new_zeros(p["ids"].shape)


def gradients(p: dict[str, Any], scores: Tensor) -> list[Tensor]:
    inputs = [x for x in (p["queries"], p["table"], p["scale"]) if x is not None]
    weights = torch.linspace(-1, 2, scores.numel(), dtype=scores.dtype, device=scores.device)
    weights = weights.view(scores.shape)
    return list(torch.autograd.grad(scores, inputs, weights))


@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("sides", [1, 2])
@pytest.mark.parametrize("n", [1, 2, 3, 4, 5, 9])
def test_scores_and_gradients_equal_those_of_single_candidates(
    backend: str, metric: Metric, scaled: bool, sides: int, n: int
) -> None:
    p = problem(metric, n=n, sides=sides, scaled=scaled)
    actual, expected = sampled_score(**p), by_hand(p)
    assert torch.allclose(actual, expected, atol=1e-12)
    for a, b in zip(gradients(p, actual), gradients(p, expected), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@native
@settings(max_examples=60)
@given(
    metric=st.sampled_from(list(Metric)),
    entities=st.integers(1, 40),
    batch=st.integers(0, 6),
    n=st.integers(0, 300),
    half=st.sampled_from([1, 2, 7, 16, 33, 65, 129, 130, 132]),
    scaled=st.booleans(),
    seed=st.integers(0, 100),
)
def test_float32_agrees_with_the_reference(
    metric: Metric, entities: int, batch: int, n: int, half: int, scaled: bool, seed: int
) -> None:
    p = problem(metric, entities, batch, n, 2 * half, 2, scaled, torch.float32, seed)
    numbers, weights = flat_pairs(p["pairs"])
    args = (
        p["queries"],
        p["table"],
        p["ids"],
        p["corrupted_side"],
        int(metric),
        numbers,
        weights,
        p["scale"],
    )
    actual, expected = sampled_score(**p), reference(*args)
    assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-4)
    for a, b in zip(gradients(p, actual), gradients(p, expected), strict=True):
        assert torch.allclose(a, b, rtol=1e-4, atol=1e-3 * max(1.0, n) ** 0.5)


@pytest.mark.parametrize("metric", [Metric.dot, Metric.l1, Metric.modulus])
def test_repeated_and_overlapping_blocks_add_up(backend: str, metric: Metric) -> None:
    p = problem(metric, width=8)
    p["pairs"] = [Pair(0, 4, 4, 0.5), Pair(0, 0, 4, 2.0), Pair(2, 2, 6, -1.0)]
    actual, expected = sampled_score(**p), by_hand(p)
    assert torch.allclose(actual, expected, atol=1e-12)
    for a, b in zip(gradients(p, actual), gradients(p, expected), strict=True):
        assert torch.allclose(a, b, atol=1e-12)


@pytest.mark.parametrize("metric", [Metric.l1, Metric.l2, Metric.modulus])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("n", [1, 4])
def test_the_gradient_at_distance_0_is_0(
    backend: str, metric: Metric, dtype: torch.dtype, n: int
) -> None:
    p = problem(metric, entities=3, batch=1, n=n, dtype=dtype)
    row = p["table"].detach()[1]
    p["ids"][:] = 1
    p["queries"] = row.expand(2, 1, -1).clone().requires_grad_()
    scores = sampled_score(**p)
    assert (scores == 0).all()
    assert all((grad == 0).all() for grad in gradients(p, scores))


@native
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("scaled", [False, True])
def test_opcheck_and_gradcheck(metric: Metric, scaled: bool) -> None:
    p = problem(metric, entities=5, batch=3, n=5, width=4, scaled=scaled)
    numbers, weights = flat_pairs(p["pairs"])
    args = (
        p["queries"], p["table"], p["ids"], p["corrupted_side"], int(metric), numbers, weights,
        p["scale"], None,
    )  # fmt: skip
    torch.library.opcheck(torch.ops.mmkgc.sampled_score.default, args)
    inputs = [x for x in (p["queries"], p["table"], p["scale"]) if x is not None]

    def score(*tensors: Tensor) -> Tensor:
        given = dict(zip(("queries", "table", "scale"), tensors, strict=False))
        return sampled_score(**{**p, **given})

    assert torch.autograd.gradcheck(score, inputs)


@native
@pytest.mark.parametrize("metric", Metric)
def test_results_are_bitwise_equal_for_any_number_of_threads(metric: Metric) -> None:
    p = problem(metric, entities=50, batch=40, n=70, width=34, dtype=torch.float32)
    p["ids"][:, ::3] = 7  # one entity takes a third of all
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        scores = sampled_score(**p)
        results.append([scores, *gradients(p, scores)])
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


@pytest.mark.parametrize(("entities", "batch", "n"), [(4, 0, 3), (4, 3, 0), (0, 3, 0), (1, 1, 1)])
def test_empty_inputs_are_fine(backend: str, entities: int, batch: int, n: int) -> None:
    p = problem(Metric.modulus, entities, batch, n)
    scores = sampled_score(**p)
    assert scores.shape == (batch, n)
    for grad, like in zip(gradients(p, scores), (p["queries"], p["table"]), strict=True):
        assert grad.shape == like.shape
        assert n or not grad.any()


def test_strided_and_dense_inputs_have_equal_scores(backend: str) -> None:
    p = problem(Metric.l1, n=6)
    expected = sampled_score(**p)
    p["queries"] = p["queries"].detach().transpose(0, 2).contiguous().transpose(0, 2)
    p["table"] = torch.cat([p["table"].detach()] * 2, 1)[:, :6]
    p["ids"], p["corrupted_side"] = p["ids"].T.contiguous().T, p["corrupted_side"].T.contiguous().T
    assert torch.allclose(sampled_score(**p), expected, atol=1e-12)


def test_a_given_order_gives_the_same_gradients(backend: str) -> None:
    p = problem(Metric.modulus, n=20)
    order = p["ids"].flatten().argsort(stable=True)
    expected = gradients(p, sampled_score(**p))
    actual = gradients(p, sampled_score(**p, order=order))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "queries dims": ({"queries": torch.zeros(5, 6)}, r"queries must be \[1 or 2, B, Dq\]"),
    "queries dtype": ({"queries": torch.zeros(2, 5, 6).half()}, "queries must be float32 or"),
    "table dims": ({"table": torch.zeros(6)}, "table has 1 dimensions, expected 2"),
    "table dtype": ({"table": torch.zeros(19, 6)}, "table and queries must have the same dtype"),
    "scale": (
        {"scale": torch.zeros(2, 5, 7, dtype=torch.float64)},
        r"scale must be \[2, 5, 6\] with the dtype of queries",
    ),
    "metric": ({"metric": 4}, "metric is 4, expected 0"),
    "pairs": ({"pairs": []}, "pairs holds 0 numbers for 0 weights"),
    "pair outside": ({"pairs": [Pair(3, 0, 4)]}, r"pair 0 \(3, 0, 4\) exceeds"),
    "odd pair": ({"pairs": [Pair(0, 0, 3)]}, "pair 0 has odd width 3"),
    "ids rows": ({"ids": torch.zeros(4, 9, dtype=torch.int64)}, r"ids must be \[5, N\]"),
    "ids dtype": ({"ids": torch.zeros(5, 9, dtype=torch.int32)}, "ids must be int64"),
    "id": ({"ids": torch.full((5, 9), 19)}, r"ids\[0\] is 19, outside 0..18"),
    "negative id": ({"ids": torch.full((5, 9), -1)}, r"ids\[0\] is -1, outside 0..18"),
    "side shape": (
        {"corrupted_side": torch.zeros(5, 8, dtype=torch.int8)},
        "corrupted_side must have the shape of",
    ),
    "side dtype": (
        {"corrupted_side": torch.zeros(5, 9, dtype=torch.int64)},
        "corrupted_side must be int8",
    ),
    "corrupted_side": (
        {"corrupted_side": torch.full((5, 9), 2, dtype=torch.int8)},
        r"corrupted_side\[0\] is 2, outside 0..1",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_errors_of_arguments_are_equal_on_both_backends(backend: str, what: str) -> None:
    changes, message = WRONG[what]
    with pytest.raises(RuntimeError, match="sampled_score: " + message):
        sampled_score(**{**problem(Metric.modulus), **changes})


@pytest.mark.parametrize(
    ("order", "message"),
    [
        (torch.arange(44), "order has 44 entries, expected 45"),
        (torch.arange(45).int(), "order must be int64"),
        (torch.full((45,), 45), r"order\[0\] is 45, outside 0..44"),
        (torch.zeros(45, dtype=torch.int64), "order does not sort the ids at entry 1"),
        (torch.arange(45), r"order does not sort the ids at entry \d"),
    ],
)
def test_a_wrong_order_raises(backend: str, order: Tensor, message: str) -> None:
    p = problem(Metric.dot)
    with pytest.raises(RuntimeError, match=message):
        sampled_score(**p, order=order).sum().backward()


@native
@pytest.mark.parametrize("metric", [Metric.dot, Metric.l2])
def test_more_candidates_than_a_tile_holds(metric: Metric) -> None:
    """With many pairs there are many blocks, and a tile holds 65,536 candidates: two tiles."""
    if EMULATED:
        pytest.skip("only the CPU kernels have such tiles")
    p = problem(metric, entities=50, batch=10, n=10_000, width=2)
    p["pairs"] = [Pair(i % 2, i % 2, 1, 1 / 64) for i in range(64)]
    numbers, weights = flat_pairs(p["pairs"])
    actual = sampled_score(**p)
    expected = reference(
        p["queries"], p["table"], p["ids"], p["corrupted_side"], int(metric), numbers, weights
    )
    assert torch.allclose(actual, expected, atol=1e-12)
    for a, b in zip(gradients(p, actual), gradients(p, expected), strict=True):
        assert torch.allclose(a, b, atol=1e-9)
