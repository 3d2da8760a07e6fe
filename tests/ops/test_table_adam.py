from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from mmkgc_cli.ops import DeferredGradient, Metric, Pair, dense_gradient, table_adam
from tests.ops.conftest import native

# The table, exp_avg and exp_avg_sq.
State = tuple[Tensor, Tensor, Tensor]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"betas": (0.8, 0.95), "eps": 1e-3, "weight_decay": 0.1},
    {"weight_decay": 0.1, "decoupled": True},
]


def problem(
    entities: int = 17,
    batch: int = 6,
    n: int = 7,
    width: int = 10,
    metric: Metric = Metric.modulus,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
    scaled: bool = False,
    extra: int = 4,
) -> tuple[State, DeferredGradient]:
    rng = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=rng, dtype=dtype)

    gradient = DeferredGradient(
        normal(batch, n),
        normal(2, batch, width),
        torch.randint(entities, (batch, n), generator=rng),
        torch.randint(2, (batch, n), generator=rng).to(torch.int8),
        int(metric),
        [0, 0, width],
        [0.7],
        normal(2, batch, width) if scaled else None,
        None,
        normal(extra, width) if extra else None,
        torch.randint(entities, (extra,), generator=rng) if extra else None,
    )
    state = normal(entities, width), normal(entities, width), normal(entities, width).square()
    return state, gradient


def cloned(state: State) -> State:
    table, exp_avg, exp_avg_sq = state
    return table.clone(), exp_avg.clone(), exp_avg_sq.clone()


def torch_adam(
    table: Tensor, exp_avg: Tensor, exp_avg_sq: Tensor, gradient: Tensor, step: int,
    lr: float, decoupled: bool = False, **options: Any,
) -> nn.Parameter:  # fmt: skip
    """The same step by the optimizer of torch."""
    parameter = nn.Parameter(table.clone())
    kind = torch.optim.AdamW if decoupled else torch.optim.Adam
    optimizer = kind([parameter], lr=lr, **{"weight_decay": 0.0, **options})
    optimizer.state[parameter] = {
        "step": torch.tensor(float(step - 1)),
        "exp_avg": exp_avg.clone(),
        "exp_avg_sq": exp_avg_sq.clone(),
    }
    parameter.grad = gradient
    optimizer.step()
    return parameter


@pytest.mark.parametrize("options", OPTIONS, ids=["adam", "penalty", "decoupled"])
@pytest.mark.parametrize("metric", list(Metric))
def test_a_step_equals_that_of_torch_with_the_dense_gradient(
    backend: str, metric: Metric, options: dict[str, Any]
) -> None:
    (table, exp_avg, exp_avg_sq), gradient = problem(metric=metric)
    dense = torch.randn_like(table)
    full = dense_gradient(gradient, table) + dense
    expected = torch_adam(table, exp_avg, exp_avg_sq, full, 3, 0.01, **options)
    squares = table_adam(table, exp_avg, exp_avg_sq, gradient, 3, 0.01, dense=dense, **options)
    assert torch.allclose(table, expected.detach(), atol=1e-12)
    assert float(squares) == pytest.approx(float(full.square().sum()))


@pytest.mark.parametrize("metric", list(Metric))
def test_a_counter_is_added_to_the_step(backend: str, metric: Metric) -> None:
    state, gradient = problem(metric=metric)
    later = cloned(state)
    table_adam(*later, gradient, 5, 0.01)
    table_adam(*state, gradient, 2, 0.01, counter=torch.tensor([3]))
    assert all(torch.equal(a, b) for a, b in zip(state, later, strict=True))


@native
@settings(max_examples=40)
@given(
    entities=st.integers(1, 40),
    batch=st.integers(0, 9),
    n=st.integers(0, 150),
    width=st.sampled_from([2, 4, 6, 32, 62, 130, 260, 264]),
    metric=st.sampled_from(list(Metric)),
    scaled=st.booleans(),
    extra=st.sampled_from([0, 5]),
    seed=st.integers(0, 100),
)
def test_float32_agrees_with_the_reference(
    entities: int, batch: int, n: int, width: int, metric: Metric, scaled: bool, extra: int,
    seed: int,
) -> None:  # fmt: skip
    references, g = problem(entities, batch, n, width, metric, torch.float64, seed, scaled, extra)
    table, exp_avg, exp_avg_sq = (t.float() for t in references)
    cast = {name: value.float() for name, value in vars(g).items()
            if isinstance(value, Tensor) and value.is_floating_point()}  # fmt: skip
    actual = DeferredGradient(**{**vars(g), **cast})
    table_adam(table, exp_avg, exp_avg_sq, actual, 2, 0.01)
    expected = torch_adam(*references, dense_gradient(g, references[0]), 2, 0.01)
    assert torch.allclose(table.double(), expected.detach(), rtol=1e-4, atol=2e-4)


@native
def test_opcheck() -> None:
    (table, exp_avg, exp_avg_sq), g = problem(dtype=torch.float32)
    torch.library.opcheck(
        torch.ops.mmkgc.table_adam.default,
        (g.grad, g.queries, table, exp_avg, exp_avg_sq, g.ids, g.corrupted_side, g.metric, g.pairs,
         g.weights, g.scale, g.order, g.extra, g.extra_ids, None, 0.01, 0.9, 0.999, 1e-8, 0.0,
         False, 1),
    )  # fmt: skip


@native
def test_results_are_bitwise_equal_for_any_number_of_threads() -> None:
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        state, gradient = problem(300, 90, 50, 66, dtype=torch.float32)
        gradient.ids[:, ::4] = 3
        squares = table_adam(*state, gradient, 5, 0.01)
        results.append((*state, squares))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


WRONG: dict[str, tuple[dict[str, Any], str]] = {
    "exp_avg": ({"exp_avg": torch.zeros(3, 10).double()}, "exp_avg must have the shape of table"),
    "dtype": ({"exp_avg_sq": torch.zeros(17, 10)}, "exp_avg_sq and table must have the same dtype"),
    "contiguous": (
        {"exp_avg": torch.zeros(10, 17, dtype=torch.float64).T}, "exp_avg must be contiguous",
    ),
    "step": ({"step": 0}, "step is 0, expected 1 or more"),
    "dense": ({"dense": torch.zeros(17, 9, dtype=torch.float64)}, "dense must have the shape"),
    "grad": ({"grad": torch.zeros(6, 8, dtype=torch.float64)}, "grad must have the shape of ids"),
    "order": ({"order": torch.zeros(42, dtype=torch.int64)}, "order does not sort the ids"),
    "extra": ({"extra": None}, "extra and extra_ids must be given together"),
    "extra shape": (
        {"extra": torch.zeros(4, 9, dtype=torch.float64)}, r"extra must be \[4, 10\]",
    ),
    "extra ids": ({"extra_ids": torch.full((4,), 17)}, r"extra_ids\[0\] is 17, outside 0..16"),
    "ids": ({"ids": torch.full((6, 7), -1)}, r"ids\[0\] is -1, outside 0..16"),
    "counter": ({"counter": torch.zeros(2).long()}, "counter must hold one int64 value"),
    "pairs": ({"pairs": [0, 0, 12]}, r"pair 0 \(0, 0, 12\) exceeds"),
}  # fmt: skip


@pytest.mark.parametrize("what", WRONG)
def test_errors_of_arguments_are_equal_on_both_backends(backend: str, what: str) -> None:
    changes, message = WRONG[what]
    (table, exp_avg, exp_avg_sq), gradient = problem()
    own: dict[str, Any] = {"exp_avg": exp_avg, "exp_avg_sq": exp_avg_sq, "step": 1, "dense": None,
           "counter": None}  # fmt: skip
    of_gradient = {k: v for k, v in changes.items() if k not in own}
    own.update({k: v for k, v in changes.items() if k in own})
    given_ = DeferredGradient(**{**vars(gradient), **of_gradient})
    before = table.clone()
    with pytest.raises(RuntimeError, match="table_adam: " + message):
        table_adam(table, gradient=given_, lr=0.1, **own)
    assert torch.equal(table, before)


def test_all_pairs_contribute_to_the_gradient() -> None:
    """Two pairs share a candidate block."""
    (table, exp_avg, exp_avg_sq), gradient = problem(width=8, metric=Metric.l1, extra=0)
    pairs = [Pair(0, 0, 4, 1.0), Pair(4, 0, 4, 2.0)]
    numbers = [n for p in pairs for n in (p.query, p.candidate, p.width)]
    both = DeferredGradient(**{**vars(gradient), "pairs": numbers, "weights": [1.0, 2.0]})
    expected = torch_adam(table, exp_avg, exp_avg_sq, dense_gradient(both, table), 1, 0.1)
    table_adam(table, exp_avg, exp_avg_sq, both, 1, 0.1)
    assert torch.allclose(table, expected.detach(), atol=1e-12)
