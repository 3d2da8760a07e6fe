"""Kernels and references agree at all magnitudes: equal, or both not finite.

Values whose squares or products overflow or underflow are the subject. `MAGNITUDES` covers the
range of float32, subnormal numbers included.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import pytest
import torch
from torch import Tensor

from mmkgc_cli.ops import (
    DeferredGradient,
    MessageGraph,
    Metric,
    Pair,
    RowLoss,
    dense_gradient,
    rank_candidates,
    rgcn_propagate,
    rotate_loss,
    rotate_score,
    sampled_loss,
    sampled_score,
    table_adam,
)
from mmkgc_cli.ops._native import without_kernels
from mmkgc_cli.scoring import Side
from mmkgc_cli.scoring.scores import triple_scores
from tests.conftest import random_graph
from tests.ops import losses, test_rotate_score
from tests.ops.conftest import native, on_gpu, to_device
from tests.ops.test_rgcn_propagate import triples
from tests.ops.test_sampled_loss import ROW_LOSSES
from tests.scoring import small

SMALL = [0.0, -0.0, 1e-45, 1e-42, 1e-38, 1e-30, 1e-23, 1e-20, 3e-19]
LARGE = [1e10, 1e18, 1e20, 1e30, 1.5e38, 3e38]
MAGNITUDES = [*SMALL, 1e-10, 1.0, *LARGE, torch.inf, torch.nan]
every_magnitude = pytest.mark.parametrize("magnitude", MAGNITUDES)
every_metric = pytest.mark.parametrize("metric", Metric)
FLOAT32_MAX = torch.finfo(torch.float32).max
# The root of the smallest normal number: smaller distances have squares that lose bits.
ROOT = 2.0**-63


def agree(actual: Sequence[Tensor], expected: Sequence[Tensor], atol: float = 0.0) -> None:
    """Finite values are equal up to rounding; others are not finite in both.

    A sum may cancel, so that its error is relative to the largest value of its tensor.
    """
    for a, b in zip(actual, expected, strict=True):
        finite = b.isfinite()
        assert torch.equal(a.isfinite(), finite), (a[a.isfinite() != finite], b[~finite])
        largest = float(b[finite].abs().max()) if finite.any() else 0.0
        torch.testing.assert_close(a[finite], b[finite], rtol=1e-5, atol=atol + 1e-5 * largest)


def on_both(run: Callable[[], Sequence[Tensor]]) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """The results of the kernels and of the references."""
    actual = run()
    with without_kernels():
        return actual, run()


def gradients(output: Tensor, *inputs: Tensor | None) -> list[Tensor]:
    """The output, and the gradients of its weighted mean, so that no sum of them overflows."""
    weights = torch.linspace(0.5, 1, output.numel(), device=output.device) / output.numel()
    leaves = [x for x in inputs if x is not None]
    found = torch.autograd.grad(output, leaves, weights.view(output.shape).to(output.dtype))
    return [output.detach(), *found]


def uniform(rng: torch.Generator, *shape: int) -> Tensor:
    """Numbers from 0.5 to 1."""
    return 0.5 + 0.5 * torch.rand(*shape, generator=rng)


def mixed(rng: torch.Generator, *shape: int) -> Tensor:
    """Rows with all finite magnitudes and both signs; -0.0 is among them."""
    choices = torch.tensor([*SMALL, 1e-10, 1.0, *LARGE[:3]])
    values = choices[torch.randint(len(choices), shape, generator=rng)]
    return values * torch.where(torch.rand(*shape, generator=rng) < 0.5, -1, 1)


def sampled(rng: torch.Generator, width: int, queries: Tensor, table: Tensor) -> dict[str, Any]:
    batch, n = queries.shape[1], 9
    return {
        "queries": queries.requires_grad_(),
        "table": table.requires_grad_(),
        "ids": torch.randint(len(table), (batch, n), generator=rng),
        "corrupted_side": torch.randint(len(queries), (batch, n), generator=rng).to(torch.int8),
        "pairs": [Pair(0, 0, width)],
    }


def scored(p: dict[str, Any], metric: Metric, scale: Tensor | None = None) -> Sequence[Tensor]:
    scores = sampled_score(**p, metric=metric, scale=scale)
    return gradients(scores, p["queries"], p["table"], scale)


@native
@every_metric
@every_magnitude
def test_scores_and_gradients_agree(metric: Metric, magnitude: float) -> None:
    rng = torch.Generator().manual_seed(0)
    for width, scaled in ((6, False), (6, True), (64, False), (64, True)):
        queries = uniform(rng, 2, 5, width) * magnitude
        for table_magnitude in (magnitude, 1.0, -1.0):
            p = sampled(rng, width, queries.clone(), uniform(rng, 19, width) * table_magnitude)
            scale = uniform(rng, 2, 5, width).requires_grad_() if scaled else None
            actual, expected = on_both(lambda p=p, scale=scale: scored(p, metric, scale))  # type: ignore[misc]
            # Sums of subnormal squares differ by units of 1.4e-45, with roots of 3.7e-23.
            agree(actual, expected, atol=width * 4e-23 if metric is not Metric.dot else 1e-43)
            if metric is not Metric.dot:  # the terms of a distance have one sign
                a, b = actual[0], expected[0]
                assert torch.equal(a.nan_to_num(0, 1, -1).sign(), b.nan_to_num(0, 1, -1).sign())
                assert torch.equal(a.isnan(), b.isnan())


@native
@every_metric
@pytest.mark.parametrize("seed", range(4))
def test_scores_and_gradients_agree_with_mixed_magnitudes(metric: Metric, seed: int) -> None:
    rng = torch.Generator().manual_seed(seed)
    width = 38
    p = sampled(rng, width, mixed(rng, 1, 4, width), mixed(rng, 30, width))
    if metric is Metric.dot:  # no two large numbers meet, so that no sum overflows in part
        p["table"] = (p["table"].detach().clamp(-1, 1)).requires_grad_()
    with torch.no_grad():
        p["table"][3] = p["queries"][0, 1]  # a distance of 0
        p["table"][4, 5], p["table"][5, 6], p["queries"][0, 2, 7] = torch.inf, torch.nan, -torch.inf
    agree(*on_both(lambda: scored(p, metric)))


@pytest.mark.parametrize("magnitude", [1e-45, 1e-38, 1e-30, 1e-20, 1e-10, 1.0, 1e10, 1e15])
@pytest.mark.parametrize("metric", [Metric.l2, Metric.modulus])
@pytest.mark.parametrize("scaled", [False, True])  # scaled ones have another kernel
def test_the_gradient_of_a_distance_is_the_direction(
    backend: str, magnitude: float, metric: Metric, scaled: bool
) -> None:
    difference = torch.tensor([3.0, -4.0]) * magnitude
    queries = difference[None, None].requires_grad_()
    scale = torch.ones(1, 1, 2) if scaled else None
    ids, side = torch.zeros(1, 1, dtype=torch.int64), torch.zeros(1, 1, dtype=torch.int8)
    pairs = [Pair(0, 0, 2)]
    table = torch.zeros(1, 2).requires_grad_()
    score = sampled_score(queries, table, ids, side, metric, pairs, scale=scale)
    direction = difference.double() / max(5 * magnitude, ROOT)
    for gradient, sign in zip(torch.autograd.grad(score, [queries, table]), (-1, 1), strict=True):
        torch.testing.assert_close(
            sign * gradient.flatten().double(), direction, rtol=1e-5, atol=1e-43
        )


@native
@every_metric
@pytest.mark.parametrize("magnitude", [1e-200, 1e-160, 1e-154, 1e30, 1e160, 1e300, torch.inf])
def test_float64_agrees(metric: Metric, magnitude: float) -> None:
    rng = torch.Generator().manual_seed(1)
    queries = uniform(rng, 2, 5, 12).double() * magnitude
    table = uniform(rng, 19, 12).double() * (magnitude if metric is not Metric.dot else 1)
    p = sampled(rng, 12, queries, table)
    agree(*on_both(lambda: scored(p, metric)), atol=1e-160)


def scaled_product(q: float, scale: float, c: float) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """Score, gradients and rank of one product of three numbers."""
    queries, factor, table = (
        torch.full((1, 2, 8), q).requires_grad_(),
        torch.full((1, 2, 8), scale).requires_grad_(),
        torch.full((3, 8), c).requires_grad_(),
    )
    ids = torch.tensor([[0, 1], [2, 1]])
    side, pairs = torch.zeros(2, 2, dtype=torch.int8), [Pair(0, 0, 8)]

    def run() -> Sequence[Tensor]:
        scores = sampled_score(queries, table, ids, side, Metric.dot, pairs, scale=factor)
        pointers, targets = torch.arange(3), torch.tensor([0, 1])
        none, zeros = torch.zeros(0, dtype=torch.int64), torch.zeros(3, dtype=torch.int64)
        _, _, nonfinite = rank_candidates(
            queries.detach()[0], table.detach(), pointers, targets, zeros, none,
            metric=Metric.dot, pairs=pairs, scale=factor.detach()[0],
        )  # fmt: skip
        return [*gradients(scores, queries, table, factor), nonfinite.float()]

    return on_both(run)


@native
@pytest.mark.parametrize("q", [1e-42, 1e-30, 1.0, 1e30])
def test_products_with_a_scale_overflow_alike(q: float) -> None:
    for scale, c in itertools.product([1e-42, 1e-30, 1.0, 1e30], repeat=2):
        agree(*scaled_product(q, scale, c), atol=1e-43)


@native
@pytest.mark.parametrize("seed", range(5))
def test_a_sum_is_within_its_bound_whatever_its_order(seed: int) -> None:
    # The bound of docs/design.md: n roundings of a sum of absolute terms. If these sum up to less
    # than the largest number, no order overflows. If a term is at least twice that number, it
    # overflows even when fused with a sum.
    rng = torch.Generator().manual_seed(seed)
    width = 64
    p = sampled(rng, width, mixed(rng, 1, 12, width), mixed(rng, 40, width))
    with torch.no_grad():
        p["queries"][0, ::2].clamp_(-1e18, 1e18)
        p["table"][::2].clamp_(-1e18, 1e18)
    (score, *_), (reference, *_) = on_both(lambda: scored(p, Metric.dot))
    terms = (p["queries"][0, :, None].double() * p["table"][p["ids"]].double()).detach()
    total, largest = terms.abs().sum(-1), terms.abs().amax(-1)
    certain = total * (1 + width * 2.0**-24) < FLOAT32_MAX
    overflowing = largest >= 2 * FLOAT32_MAX
    assert certain.any()
    assert overflowing.any()
    bound = (2 * width * 2.0**-24 * total + width * 1e-45)[certain]
    assert bool(((score.double() - reference.double())[certain].abs() <= bound).all())
    for values in (score, reference):
        assert not values[overflowing].isfinite().any()


@pytest.mark.parametrize("sign", [1, -1])
def test_infinities_of_both_signs_cancel_to_nan(backend: str, sign: int) -> None:
    queries = torch.tensor([[[1e30, sign * 1e30] * 8]])
    side, ids = torch.zeros(1, 1, dtype=torch.int8), torch.zeros(1, 1, dtype=torch.int64)
    table = torch.tensor([[1e30, -1e30] * 8])
    score = sampled_score(queries, table, ids, side, Metric.dot, [Pair(0, 0, 16)])
    assert score.isnan().all() if sign == 1 else (score == torch.inf).all()


@native
@every_metric
@every_magnitude
def test_ranks_agree(metric: Metric, magnitude: float) -> None:
    rng = torch.Generator().manual_seed(2)
    width, n, entities = 10, 6, 150  # more than a tile
    queries = uniform(rng, n, width)
    table = uniform(rng, entities, width) * torch.logspace(0, -3, entities)[:, None]
    table[::7] *= magnitude
    table[70:75] = table[69]  # equal rows have equal scores
    pointers = torch.arange(n + 1)
    targets = torch.tensor([0, 7, 69, 71, 100, 149])
    filters = torch.tensor([0, 71, 72, 80, 100, 149])

    def run() -> Sequence[Tensor]:
        return rank_candidates(
            queries, table, pointers, targets, pointers, filters, metric=metric,
            pairs=[Pair(0, 0, width)],
        )  # fmt: skip

    (better, equal, nonfinite), expected = on_both(run)
    assert torch.equal(nonfinite, expected[2])
    finite = nonfinite == 0  # elsewhere the counts are meaningless, and evaluation stops
    assert torch.equal(better[finite], expected[0][finite])
    assert torch.equal(equal[finite], expected[1][finite])


@native
@every_magnitude
def test_rotate_scores_agree(magnitude: float) -> None:
    p = test_rotate_score.problem(dtype=torch.float32, dim=18)
    table = (p["table"].detach() * magnitude).requires_grad_()
    p["table"] = table
    agree(*on_both(lambda: gradients(rotate_score(**p), table, p["phases"])), atol=36 * 4e-23)


def fused(
    table: Tensor, others: Sequence[Tensor], run: Callable[[], Tensor]
) -> tuple[Sequence[Tensor], Sequence[Tensor]]:
    """A loss, its gradients in `others`, and the deferred gradient of the table."""

    def once() -> Sequence[Tensor]:
        waiting: list[DeferredGradient] = []
        table.deferred_gradients = waiting  # type: ignore[attr-defined]
        value = run()
        found = torch.autograd.grad(value, [*others, table], allow_unused=True)
        of_table = found[-1] if found[-1] is not None else torch.zeros_like(table)
        for gradient in waiting:
            of_table = of_table + dense_gradient(gradient, table)
        return [value.detach(), *found[:-1], of_table]

    return on_both(once)


@native
@every_magnitude
@pytest.mark.parametrize("loss", ROW_LOSSES.values(), ids=ROW_LOSSES)
def test_fused_losses_agree(magnitude: float, loss: RowLoss) -> None:
    rng = torch.Generator().manual_seed(3)
    for metric in Metric:
        p = sampled(rng, 16, uniform(rng, 2, 5, 16) * magnitude, uniform(rng, 19, 16))
        mask = torch.rand(p["ids"].shape, generator=rng) < 0.8
        agree(*fused(p["table"], [p["queries"]], lambda p=p, metric=metric, mask=mask: sampled_loss(  # type: ignore[misc]
            **p, metric=metric, mask=mask, loss=loss, offset=1.5)), atol=1e-6)  # fmt: skip
    r = test_rotate_score.problem(dtype=torch.float32, dim=9)
    r["table"] = (r["table"].detach() * magnitude).requires_grad_()
    agree(*fused(r["table"], [r["phases"]], lambda: rotate_loss(
        **r, mask=None, loss=loss, offset=1.5)), atol=1e-6)  # fmt: skip


EXTREMES = [0.0, -0.0, 1e-42, -1e-30, 1.0, -30.0, 90.0, 1e4, -1e20, 1e30, 2e38, -2e38, 3e38, -3e38]


@native
@pytest.mark.parametrize("loss", losses.LOSSES.values(), ids=losses.LOSSES)
@pytest.mark.parametrize("special", [None, torch.inf, -torch.inf, torch.nan])
def test_losses_of_scores_agree(loss: losses.Loss, special: float | None) -> None:
    rng = torch.Generator().manual_seed(4)
    values = torch.tensor(EXTREMES)
    for count in (1, 3, len(values)):  # rows with few kinds of scores
        for _ in range(2):
            some = values[torch.randperm(len(values), generator=rng)[:count]]
            # Not equal to a negative: near 0, the sign of a difference is that of its rounding.
            positive = 0.9 * some[torch.randint(count, (6,), generator=rng)]
            negative = some[torch.randint(count, (6, 21), generator=rng)]
            mask = torch.rand(negative.shape, generator=rng) < 0.7
            mask[0] = False
            if special is not None:
                negative[1, 3] = negative[2, :] = positive[3] = special
            for row in range(6):  # alone, since one row decides whether the mean is finite
                scores = positive[row : row + 1], negative[row : row + 1]
                for kept in (None, mask[row : row + 1]):
                    leaves = [x.clone().requires_grad_() for x in scores]
                    agree(*on_both(lambda leaves=leaves, kept=kept: gradients(  # type: ignore[misc]
                        loss.ours(*leaves, kept), *leaves)), atol=1e-6)  # fmt: skip


@native
@every_magnitude
@pytest.mark.parametrize("decoupled", [False, True])
def test_adam_steps_agree(magnitude: float, decoupled: bool) -> None:
    rng = torch.Generator().manual_seed(5)
    ids = torch.randint(11, (4, 6), generator=rng)
    gradient = DeferredGradient(
        uniform(rng, 4, 6) / 24, uniform(rng, 2, 4, 10) * magnitude, ids,
        torch.zeros(4, 6, dtype=torch.int8), int(Metric.dot), [0, 0, 10], [1.0],
    )  # fmt: skip
    for start in (1.0, magnitude):
        initial = [uniform(rng, 11, 10) * m for m in (start, magnitude, min(magnitude, 1e38))]

        def run(initial: list[Tensor] = initial) -> Sequence[Tensor]:
            state = [x.clone() for x in initial]
            squares = table_adam(
                state[0], state[1], state[2], gradient, 3, 1e-3, weight_decay=0.1,
                decoupled=decoupled,
            )  # fmt: skip
            return [*state, squares]

        agree(*on_both(run), atol=1e-36)


@native
@every_magnitude
def test_neighbour_sums_agree(magnitude: float) -> None:
    rng = torch.Generator().manual_seed(6)
    graph = MessageGraph.from_triples(triples(11, 3, 40), 11, 3, dtype=torch.float32)
    cases = ((magnitude, 1.0), (1.0, magnitude), (magnitude, magnitude))
    for (of_x, of_coefficients), bases in itertools.product(cases, (1, 2, 3)):
        x = (uniform(rng, 11, 20) * of_x).requires_grad_()
        a = (uniform(rng, graph.relations, bases) * of_coefficients).requires_grad_()
        run = lambda x=x, a=a: gradients(rgcn_propagate(x, a, graph), x, a)  # noqa: E731
        agree(*on_both(run), atol=1e-42)


@on_gpu
@every_metric
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_tables_in_half_precision_agree(metric: Metric, dtype: torch.dtype) -> None:
    # Among the values are subnormal ones and the largest of each dtype.
    rng = torch.Generator().manual_seed(7)
    info = torch.finfo(dtype)
    for value in (0.0, info.smallest_normal / 4, 1.0, info.max, torch.inf, torch.nan):
        for magnitude in (1e-42, 1e-20, 1.0, 1e30):
            p = sampled(rng, 16, uniform(rng, 2, 5, 16) * magnitude, uniform(rng, 19, 16))
            half = (0.99 * p["table"].detach() * value).to(dtype)
            exact = to_device({**p, "table": half.float().requires_grad_()})
            p = to_device({**p, "table": half.requires_grad_()})
            actual, expected = scored(p, metric), scored(exact, metric)
            assert actual[2].dtype == dtype
            agree(actual[:2], expected[:2])
            # A gradient is rounded to the dtype, where it may overflow or become 0.
            rounded = [expected[2].to(dtype).float()]
            agree([actual[2].float()], rounded, atol=info.smallest_normal)


@pytest.mark.parametrize("scorer_class", [small.DistMult, small.TransE])
@every_magnitude
def test_all_scores_agree_with_those_of_triples(
    backend: str, scorer_class: type[small.Grid], magnitude: float
) -> None:
    # The dot products with all entities are a matrix product, with another order of sums.
    scorer = small.of(scorer_class, random_graph(9, 2, 20, seed=0), seed=1)
    assert isinstance(scorer, small.Grid)
    rng = torch.Generator().manual_seed(8)
    with torch.no_grad():
        scorer.entities.copy_(uniform(rng, 9, small.WIDTH) * magnitude)
        scorer.relations.copy_(uniform(rng, 2, small.WIDTH))
        heads, relations = torch.arange(9), torch.arange(9) % 2
        every = torch.stack(torch.broadcast_tensors(
            heads[:, None], relations[:, None], torch.arange(9)), -1)  # fmt: skip
        agree(
            [scorer.score_all(heads, relations, Side.tail)], [triple_scores(scorer, every)], 1e-43
        )
