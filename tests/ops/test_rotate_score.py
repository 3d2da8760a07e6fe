from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from mmkgc_cli.ops import rotate_score
from mmkgc_cli.ops.rotate_score import reference
from mmkgc_cli.sides import Side
from tests.ops.conftest import native


def problem(
    entities: int = 17,
    relations: int = 4,
    batch: int = 6,
    n: int = 7,
    dim: int = 5,
    dtype: torch.dtype = torch.float64,
    seed: int = 0,
) -> dict[str, Any]:
    rng = torch.Generator().manual_seed(seed)

    def some(bound: int, *shape: int) -> Tensor:
        return torch.randint(bound, shape, generator=rng)

    return {
        "table": torch.randn(entities, 2 * dim, generator=rng, dtype=dtype).requires_grad_(),
        "phases": (4 * torch.randn(relations, dim, generator=rng, dtype=dtype)).requires_grad_(),
        "heads": some(entities, batch),
        "relations": some(relations, batch),
        "tails": some(entities, batch),
        "ids": some(entities, batch, n),
        "corrupted_side": some(2, batch, n).to(torch.int8),
    }


def by_definition(p: dict[str, Any]) -> Tensor:
    """-sum |h e^(i theta) - t| of each corrupted triple, in complex numbers."""
    dim = p["phases"].shape[1]
    entities = torch.complex(p["table"][:, :dim], p["table"][:, dim:])
    rotations = torch.polar(torch.ones_like(p["phases"]), p["phases"])
    heads = torch.where(p["corrupted_side"] == Side.head, p["ids"], p["heads"][:, None])
    tails = torch.where(p["corrupted_side"] == Side.tail, p["ids"], p["tails"][:, None])
    turned = entities[heads] * rotations[p["relations"]][:, None]
    return -(turned - entities[tails]).abs().sum(-1)


def gradients(p: dict[str, Any], scores: Tensor) -> tuple[Tensor, ...]:
    weights = torch.linspace(-1, 2, scores.numel(), dtype=scores.dtype).view(scores.shape)
    return torch.autograd.grad(scores, [p["table"], p["phases"]], weights)


def test_scores_and_gradients_are_those_of_the_corrupted_triples(backend: str) -> None:
    p = problem()
    actual, expected = rotate_score(**p), by_definition(p)
    assert torch.allclose(actual, expected, atol=1e-12)
    for a, b in zip(gradients(p, actual), gradients(p, expected), strict=True):
        assert torch.allclose(a, b, atol=1e-11)


@native
@settings(max_examples=40)
@given(
    entities=st.integers(1, 40),
    relations=st.integers(1, 6),
    batch=st.integers(0, 9),
    n=st.integers(0, 40),
    dim=st.sampled_from([1, 3, 16, 31, 65, 128]),
    seed=st.integers(0, 100),
)
def test_float32_agrees_with_the_reference(
    entities: int, relations: int, batch: int, n: int, dim: int, seed: int
) -> None:
    p = problem(entities, relations, batch, n, dim, torch.float32, seed)
    actual, expected = rotate_score(**p), reference(**p)
    assert torch.allclose(actual, expected, rtol=1e-5, atol=1e-4)
    for a, b in zip(gradients(p, actual), gradients(p, expected), strict=True):
        assert torch.allclose(a, b, rtol=1e-3, atol=2e-3 * max(1.0, n * batch) ** 0.5)


@native
def test_sines_and_cosines_are_accurate_to_float_precision() -> None:
    # An entity at 1 is rotated by x and compared with one at 0: the distance is 1.
    phases = torch.linspace(-300, 300, 100_001)[:, None].contiguous()
    n = len(phases)
    p = {
        "table": torch.tensor([[1.0, 0.0], [0.0, 0.0]]).requires_grad_(),
        "phases": phases.requires_grad_(),
        "heads": torch.zeros(n, dtype=torch.int64),
        "relations": torch.arange(n),
        "tails": torch.zeros(n, dtype=torch.int64),
        "ids": torch.ones(n, 1, dtype=torch.int64),
        "corrupted_side": torch.zeros(n, 1, dtype=torch.int8),
    }
    scores = rotate_score(**p).detach()
    assert float((scores + 1).abs().max()) < 1e-6
    # The distance of the rotated entity from itself is |e^(i x) - 1| = 2 |sin(x / 2)|.
    p["ids"] = torch.zeros(n, 1, dtype=torch.int64)
    expected = -2 * (phases.detach().double() / 2).sin().abs()
    actual = rotate_score(**p).detach().double()
    assert float((actual - expected).abs().max()) < 1e-6


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize("phase", [float("nan"), float("inf"), float("-inf")])
def test_a_non_finite_phase_scores_nan(backend: str, phase: float, dtype: torch.dtype) -> None:
    p = problem(dtype=dtype)
    p["relations"] = torch.tensor([0, 1, 2, 3, 1, 0])
    p["phases"].detach()[1, 2] = phase
    scores = rotate_score(**p).detach()
    assert torch.equal(scores.isnan(), (p["relations"] == 1)[:, None].expand_as(scores))


@native
def test_opcheck_and_gradcheck() -> None:
    p = problem(entities=5, relations=2, batch=3, n=4, dim=2)
    torch.library.opcheck(torch.ops.mmkgc.rotate_score.default, (*p.values(), None))
    assert torch.autograd.gradcheck(
        lambda table, phases: rotate_score(**{**p, "table": table, "phases": phases}),
        (p["table"], p["phases"]),
    )


@native
def test_results_are_bitwise_equal_for_any_number_of_threads() -> None:
    p = problem(60, 5, 90, 50, 33, torch.float32)
    p["ids"][:, ::4] = 3
    results = []
    for threads in (1, 2, 3, 2):
        torch.set_num_threads(threads)
        scores = rotate_score(**p)
        results.append((scores, *gradients(p, scores)))
    for other in results[1:]:
        assert all(torch.equal(a, b) for a, b in zip(results[0], other, strict=True))


def test_the_positive_has_one_score_for_both_sides(backend: str) -> None:
    p = problem(n=2)
    p["ids"] = torch.stack([p["tails"], p["heads"]], 1)
    p["corrupted_side"][:] = torch.tensor([Side.tail, Side.head])
    scores = rotate_score(**p)
    assert torch.allclose(scores[:, 0], scores[:, 1], atol=1e-12)


def test_a_given_order_gives_the_same_gradients(backend: str) -> None:
    p = problem()
    order = p["ids"].flatten().argsort(stable=True)
    expected = gradients(p, rotate_score(**p))
    actual = gradients(p, rotate_score(**p, order=order))
    assert all(torch.equal(a, b) for a, b in zip(actual, expected, strict=True))
    with pytest.raises(RuntimeError, match="order does not sort the ids at entry"):
        rotate_score(**p, order=order.flip(0)).sum().backward()


WRONG = {
    "table dims": ({"table": torch.zeros(6)}, "table has 1 dimensions, expected 2"),
    "table dtype": ({"table": torch.zeros(17, 10).long()}, "table must be float32 or float64"),
    "table width": (
        {"table": torch.zeros(17, 9, dtype=torch.float64)},
        "table has odd width 9, expected an even width",
    ),
    "phases dims": ({"phases": torch.zeros(4)}, "phases has 1 dimensions, expected 2"),
    "phases dtype": ({"phases": torch.zeros(4, 5)}, "phases and table must have the same dtype"),
    "phases width": (
        {"phases": torch.zeros(4, 6, dtype=torch.float64)},
        "phases has width 6, expected 5",
    ),
    "heads dims": ({"heads": torch.zeros(2, 3, dtype=torch.int64)}, "heads has 2 dimensions"),
    "head": ({"heads": torch.full((6,), 17)}, r"heads\[0\] is 17, outside 0..16"),
    "relations": ({"relations": torch.full((6,), 4)}, r"relations\[0\] is 4, outside 0..3"),
    "tails": (
        {"tails": torch.zeros(5, dtype=torch.int64)},
        "tails has 5 entries, expected 6",
    ),
    "ids": ({"ids": torch.full((6, 7), 99)}, r"ids\[0\] is 99, outside 0..16"),
    "corrupted_side": (
        {"corrupted_side": torch.full((6, 7), 2, dtype=torch.int8)},
        r"corrupted_side\[0\] is 2, outside 0..1",
    ),
}


@pytest.mark.parametrize("what", WRONG)
def test_errors_of_arguments_are_equal_on_both_backends(backend: str, what: str) -> None:
    changes, message = WRONG[what]
    with pytest.raises(RuntimeError, match="rotate_score: " + message):
        rotate_score(**{**problem(), **changes})
