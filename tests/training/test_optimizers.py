from __future__ import annotations

import copy
import gc
from collections.abc import Sequence
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from mmkgc_cli.ops import Metric, lookup, rotate_score, sampled_score
from mmkgc_cli.ops.metric import whole_row
from mmkgc_cli.training.optimizers import Adam, LazyAdam
from tests.ops.conftest import backend, native

__all__ = ["backend"]  # a fixture


def batch(entities: int, relations: int, seed: int) -> tuple[Tensor, ...]:
    rng = torch.Generator().manual_seed(seed)
    heads, tails = (torch.randint(entities, (5,), generator=rng) for _ in range(2))
    ids = torch.randint(entities, (5, 7), generator=rng)
    side = torch.randint(2, (5, 7), generator=rng).to(torch.int8)
    return heads, torch.randint(relations, (5,), generator=rng), tails, ids, side


def loss_of(table: Tensor, phases: Tensor, op: str = "rotate", calls: int = 1) -> Tensor:
    total = torch.zeros((), dtype=table.dtype)
    for call in range(calls):
        heads, relations, tails, ids, side = batch(len(table), len(phases), call)
        if op == "rotate":
            scores = rotate_score(
                table, phases, heads, relations, tails, ids=ids, corrupted_side=side
            )
        else:
            # Queries depend on the table, so its gradient has a second source.
            row = lookup if op == "lookup" else lambda t, i: nn.functional.embedding(i, t)
            queries = row(table, torch.stack([heads, tails])) + row(phases, relations).repeat(1, 2)
            terms = whole_row(table.shape[1])
            scores = sampled_score(queries, table, ids, side, Metric.l1, terms)
        total = total + scores.sin().sum()
    return total


def parameters(dtype: torch.dtype = torch.float64) -> tuple[nn.Parameter, nn.Parameter]:
    rng = torch.Generator().manual_seed(0)
    table, phases = (
        nn.Parameter(torch.randn(n, d, generator=rng, dtype=dtype)) for n, d in ((9, 6), (3, 3))
    )
    return table, phases


def torch_step(
    loss: Any = loss_of, steps: int = 1, **options: Any
) -> tuple[nn.Parameter, nn.Parameter]:
    """The same training with the optimizer of torch."""
    trained = parameters()
    optimizer = torch.optim.Adam(trained, lr=0.01, **options)
    for _ in range(steps):
        optimizer.zero_grad()
        loss(*trained).backward()
        optimizer.step()
    return trained


def same(parameters: Sequence[nn.Parameter], expected: Sequence[nn.Parameter]) -> bool:
    return all(torch.allclose(a, b, atol=1e-12) for a, b in zip(parameters, expected, strict=True))


@pytest.mark.parametrize("op", ["rotate", "sampled", "lookup"])
@pytest.mark.parametrize("calls", [1, 2])
@pytest.mark.parametrize("materialize", [False, True])
def test_steps_are_identical_to_those_of_torch(
    backend: str, op: str, calls: int, materialize: bool
) -> None:
    trained = parameters()
    optimizer = Adam(trained, lr=0.01, weight_decay=0.01)
    for _ in range(4):
        optimizer.zero_grad()
        with optimizer.deferring():
            loss_of(*trained, op, calls).backward()
        if materialize:
            optimizer.materialize()
            assert trained[0].grad is not None
        optimizer.step()
    expected = torch_step(lambda t, p: loss_of(t, p, op, calls), 4, weight_decay=0.01)
    assert same(trained, expected)
    assert float(optimizer.state[trained[0]]["step"]) == 4


@native
def test_a_deferred_gradient_is_not_materialized_and_zero_grad_clears_it() -> None:
    table, phases = trained = parameters()
    optimizer = Adam(trained, lr=0.01)
    with optimizer.deferring():
        loss_of(*trained).backward()
    assert table.grad is None
    assert phases.grad is not None
    before = table.detach().clone()
    optimizer.zero_grad()
    optimizer.step()
    assert torch.equal(table, before)


@native
def test_looked_up_rows_are_stepped_with_the_table() -> None:
    table, phases = trained = parameters()
    optimizer = Adam(trained, lr=0.01)
    with optimizer.deferring():
        loss_of(*trained, "lookup").backward()
    assert table.grad is None
    assert phases.grad is None
    optimizer.step()
    assert table.grad is None  # never written
    assert same(trained, torch_step(lambda t, p: loss_of(t, p, "sampled")))


@native
@pytest.mark.parametrize("op", ["sampled", "lookup"])
def test_lazy_adam_steps_rows_that_only_queries_use(op: str) -> None:
    table, _ = trained = parameters()
    before = table.detach().clone()
    optimizer = LazyAdam(trained, lr=0.01)
    with optimizer.deferring():
        loss_of(*trained, op).backward()
    optimizer.step()
    heads, _, tails, ids, _ = batch(9, 3, 0)
    in_batch = torch.zeros(9, dtype=torch.bool).index_fill_(
        0, torch.cat([heads, tails, ids.flatten()]), 1
    )
    moved = (table.detach() != before).any(1)
    assert torch.equal(moved, in_batch)


@native
def test_gradients_of_looked_up_rows_are_summed() -> None:
    table, _ = trained = parameters()
    ids = torch.tensor([[2, 0], [2, 2]])
    optimizer = Adam(trained, lr=0.01)
    with optimizer.deferring():
        lookup(table, ids).sin().sum().backward()
    optimizer.step()
    expected = torch_step(lambda t, p: t[ids].sin().sum() + 0 * p.sum())
    assert torch.allclose(table, expected[0], atol=1e-12)


@native
def test_second_derivatives_of_deferred_lookups_are_an_error() -> None:
    table, _ = trained = parameters()
    with Adam(trained).deferring():
        rows = lookup(table, torch.tensor([1]))
        with pytest.raises(RuntimeError, match="lookup has no second derivatives"):
            torch.autograd.grad(rows.sin().sum(), table, create_graph=True, allow_unused=True)


def test_gradients_outside_the_context_are_those_of_torch(backend: str) -> None:
    """Also after the optimizer was copied or deleted."""
    trained = parameters()
    optimizer = Adam(trained, lr=0.01)
    with optimizer.deferring():
        loss_of(*trained).backward()
    optimizer = copy.deepcopy(optimizer)
    optimizer.zero_grad()
    del optimizer
    gc.collect()
    for p in trained:
        p.grad = None
    loss_of(*trained).backward()
    assert all(p.grad is not None for p in trained)
    (gradient,) = torch.autograd.grad(loss_of(*trained), trained[0])
    assert trained[0].grad is not None
    assert torch.allclose(gradient, trained[0].grad, atol=1e-12)


def test_a_group_may_be_added_later(backend: str) -> None:
    table, phases = trained = parameters()
    optimizer = Adam([phases], lr=0.01)
    optimizer.add_param_group({"params": [table]})
    optimizer.zero_grad()
    with optimizer.deferring():
        loss_of(*trained).backward()
    optimizer.step()
    assert same(trained, torch_step())


def test_states_of_torch_and_ours_are_interchangeable(backend: str) -> None:
    trained = parameters()
    classes: list[type[torch.optim.Adam]] = [torch.optim.Adam, Adam, torch.optim.Adam]
    state = None
    for optimizer_class in classes:
        optimizer = optimizer_class(trained, lr=0.01)
        if state is not None:
            optimizer.load_state_dict(state)
        optimizer.zero_grad()
        if isinstance(optimizer, Adam):
            with optimizer.deferring():
                loss_of(*trained).backward()
        else:
            loss_of(*trained).backward()
        optimizer.step()
        state = optimizer.state_dict()
    assert same(trained, torch_step(steps=3))


def test_parameters_used_as_queries_are_read_before_they_are_stepped(backend: str) -> None:
    """Two tables that are queries of each other, and one that is its own query."""

    def loss(a: Tensor, b: Tensor) -> Tensor:
        ids, side = torch.arange(9).repeat(9, 1), torch.zeros(9, 9, dtype=torch.int8)
        terms = whole_row(6)
        pairs = ((a, b), (b, a), (a, a))
        return torch.stack(
            [sampled_score(q[None], t, ids, side, Metric.l1, terms).sin().sum() for q, t in pairs]
        ).sum()

    results = []
    for optimizer_class in (Adam, torch.optim.Adam):
        rng = torch.Generator().manual_seed(0)
        tables = [nn.Parameter(torch.randn(9, 6, generator=rng)) for _ in range(2)]
        optimizer = optimizer_class(tables, lr=0.01)
        if isinstance(optimizer, Adam):
            with optimizer.deferring():
                loss(*tables).backward()
        else:
            loss(*tables).backward()
        optimizer.step()
        results.append(tables)
    assert all(torch.allclose(a, b, atol=1e-6) for a, b in zip(*results, strict=True))


@native
def test_a_parameter_changed_before_its_step_is_an_error() -> None:
    trained = parameters()
    optimizer = Adam(trained, lr=0.01)
    with optimizer.deferring():
        loss_of(*trained).backward()
    with torch.no_grad():
        trained[0].mul_(2)
    with pytest.raises(RuntimeError, match="changed between backward and step"):
        optimizer.step()


def test_hooks_on_gradients_are_called_with_gradients(backend: str) -> None:
    trained = parameters()
    trained[0].register_hook(lambda g: 2 * g)
    optimizer = Adam(trained, lr=0.01)
    with optimizer.deferring():
        loss_of(*trained).backward()
    plain = parameters()
    loss_of(*plain).backward()
    assert trained[0].grad is not None
    assert plain[0].grad is not None
    assert torch.allclose(trained[0].grad, 2 * plain[0].grad)


def test_hooks_on_steps_are_called_once() -> None:
    torch.optim.Adam(parameters())  # makes torch wrap its class
    trained = parameters()
    optimizer = Adam(trained, lr=0.01)
    calls = []
    optimizer.register_step_post_hook(lambda *_: calls.append(1))
    optimizer.step()
    assert calls == [1]


def test_column_major_parameters_are_stepped(backend: str) -> None:
    table, phases = parameters()
    table = nn.Parameter(table.detach().T.contiguous().T)
    optimizer = Adam([table, phases], lr=0.01)
    with optimizer.deferring():
        loss_of(table, phases).backward()
    optimizer.step()
    assert same([table, phases], torch_step())


def test_scoring_without_gradients_defers_nothing(backend: str) -> None:
    trained = parameters()
    optimizer = Adam(trained, lr=0.01)
    with optimizer.deferring(), torch.no_grad():
        loss_of(*trained)
    before = trained[0].detach().clone()
    optimizer.step()
    assert torch.equal(trained[0], before)


@native
@pytest.mark.parametrize("op", ["rotate", "sampled"])
@pytest.mark.parametrize("defer", [False, True])
def test_second_derivatives_are_an_error_not_zero(op: str, defer: bool) -> None:
    trained = parameters()
    optimizer = Adam(trained, lr=0.01)
    with optimizer.deferring() if defer else torch.enable_grad():
        (first,) = torch.autograd.grad(loss_of(*trained, op), trained[1], create_graph=True)
        with pytest.raises(RuntimeError, match="has no second derivatives"):
            torch.autograd.grad(first.square().sum(), trained[1])
