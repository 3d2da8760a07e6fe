from __future__ import annotations

from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError
from torch import Tensor, nn

from mmkgc_cli.ops import Metric, sampled_score, whole_row
from mmkgc_cli.scoring import Scorer, ScorerConfig
from mmkgc_cli.scoring.contract import ParameterGroup
from mmkgc_cli.training.optimization import Optimization, learning_rate_factor
from mmkgc_cli.training.optimizers import Adam, LazyAdam
from tests.training.programs import optimization_of, optimizer_of, schedule_of


class Tables(Scorer):
    """A table that is scored, and a vector with a rate of its own."""

    def __init__(self, entities: int = 9, width: int = 4) -> None:
        super().__init__(ScorerConfig(), entities, 1, torch.Generator())
        rng = torch.Generator().manual_seed(0)
        self.table = nn.Parameter(torch.randn(entities, width, generator=rng))
        self.vector = nn.Parameter(torch.randn(width, generator=rng))

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([self.table]), ParameterGroup([self.vector], rate=0.1)]

    def loss(self, seed: int, ids: Tensor | None = None) -> Tensor:
        rng = torch.Generator().manual_seed(seed)
        drawn = torch.randint(len(self.table), (3, 5), generator=rng)
        ids = drawn if ids is None else ids
        queries = torch.randn(1, len(ids), self.table.shape[1], generator=rng) * self.vector
        side = torch.zeros(ids.shape, dtype=torch.int8)
        pairs = whole_row(self.table.shape[1])
        return sampled_score(queries, self.table, ids, side, Metric.dot, pairs).square().sum()


def optimization_for(scorer: Scorer, **settings: Any) -> Optimization:
    sections = optimization_of(**settings)
    return Optimization(
        scorer, sections["optimizer"], sections["schedule"], steps_per_epoch=5, epochs=4
    )


def trained(settings: dict[str, Any], steps: int, **options: Any) -> tuple[Tables, Optimization]:
    scorer = Tables()
    optimization = optimization_for(scorer, **settings)
    for step in range(steps):
        optimization.begin_step()
        with optimization.collecting():
            scorer.loss(step, **options).backward()
        optimization.step()
    return scorer, optimization


class OneTable(Tables):
    def __init__(self) -> None:
        super().__init__()
        del self.vector
        self.register_buffer("vector", torch.ones(4))

    def parameter_groups(self) -> list[ParameterGroup]:
        return [ParameterGroup([self.table])]


def test_a_step_whose_gradients_are_all_deferred_has_their_norm() -> None:
    scorer = OneTable()
    scorer.loss(0).backward()
    assert scorer.table.grad is not None
    expected = scorer.table.grad.norm()
    scorer.zero_grad()
    optimization = optimization_for(scorer, lr=0.05)
    optimization.begin_step()
    with optimization.collecting():
        scorer.loss(0).backward()
    torch.testing.assert_close(optimization.step(), expected.double())


def by_torch(make: Any, steps: int, clip: float = 0.0) -> Tables:
    scorer = Tables()
    groups = [{"params": [scorer.table], "lr": 0.05}, {"params": [scorer.vector], "lr": 0.005}]
    optimizer = make(groups)
    for step in range(steps):
        optimizer.zero_grad()
        scorer.loss(step).backward()
        if clip:
            nn.utils.clip_grad_norm_(scorer.parameters(), clip)
        optimizer.step()
    return scorer


def close(a: Tables, b: Tables) -> bool:
    return all(
        torch.allclose(x, y, rtol=1e-4, atol=1e-5)
        for x, y in zip(a.parameters(), b.parameters(), strict=True)
    )


@pytest.mark.parametrize(
    ("settings", "make", "clip"),
    [
        ({}, torch.optim.Adam, 0),
        ({"weight_decay": 0.1}, lambda g: torch.optim.Adam(g, weight_decay=0.1), 0),
        (
            {"optimizer": "adamw", "weight_decay": 0.1},
            lambda g: torch.optim.AdamW(g, weight_decay=0.1),
            0,
        ),
        ({"optimizer": "adagrad"}, torch.optim.Adagrad, 0),
        ({"clip_norm": 0.5}, torch.optim.Adam, 0.5),
    ],
)
def test_steps_are_those_of_torch_with_rates_by_group(
    settings: dict[str, Any], make: Any, clip: float
) -> None:
    ours, _ = trained(dict(lr=0.05, **settings), 12)
    assert close(ours, by_torch(make, 12, clip))
    assert not close(ours, Tables())


def test_lazy_adam_leaves_rows_alone_that_no_batch_met() -> None:
    ids = torch.tensor([[1, 4], [4, 7], [1, 1]])
    scorer, optimization = trained({"optimizer": "lazy-adam", "lr": 0.05}, 3, ids=ids)
    moved = (scorer.table != Tables().table).any(1)
    assert moved.nonzero().flatten().tolist() == [1, 4, 7]
    assert isinstance(optimization.optimizer, LazyAdam)
    moments = optimization.optimizer.state[scorer.table]
    assert not moments["exp_avg"][~moved].any()


def test_lazy_adam_is_adam_where_every_batch_meets_every_row() -> None:
    ids = torch.arange(9).repeat(3, 1)
    lazy, _ = trained({"optimizer": "lazy-adam", "lr": 0.05}, 8, ids=ids)
    dense, _ = trained({"lr": 0.05}, 8, ids=ids)
    assert close(lazy, dense)


def test_lazy_adam_has_no_weight_decay_to_be_ignored() -> None:
    with pytest.raises(ValidationError, match="weight_decay"):
        optimizer_of("lazy-adam", weight_decay=0.1)


@given(
    schedule=st.sampled_from(["constant", "linear", "cosine", "exponential"]),
    warmup=st.sampled_from([0.0, 0.5, 3.0]),
    epochs=st.integers(4, 50),
)
def test_the_rate_rises_to_its_height_and_falls_as_the_schedule_says(
    schedule: Any, warmup: float, epochs: int
) -> None:
    decay = {"decay": 0.9} if schedule == "exponential" else {}
    settings = schedule_of(schedule, warmup_epochs=warmup, **decay)
    at = [learning_rate_factor(settings, epochs * i / 200, epochs) for i in range(201)]
    peak = max(at)
    assert peak <= 1
    assert learning_rate_factor(settings, warmup, epochs) == 1
    if warmup:
        assert learning_rate_factor(settings, warmup / 2, epochs) == pytest.approx(0.5)
    after = at[int(200 * warmup / epochs) + 1 :]
    assert after == sorted(after, reverse=True)
    ends = {"constant": 1.0, "linear": 0.0, "cosine": 0.0, "exponential": 0.9 ** (epochs - warmup)}
    assert at[-1] == pytest.approx(ends[schedule], abs=1e-9)


def test_the_schedule_reaches_every_group_at_its_rate() -> None:
    settings = {"lr": 0.05, "schedule": "linear"}
    _, optimization = trained(settings, 10)  # half of 4 epochs of 5 steps
    rates = [group["lr"] for group in optimization.optimizer.param_groups]
    assert rates == pytest.approx([0.025, 0.0025])


def test_averaged_weights_are_those_of_the_closed_form_and_give_way_again() -> None:
    settings = {"lr": 0.05, "average": 0.5}
    expected = Tables().table.detach().clone()
    for steps in range(1, 5):
        scorer, _ = trained(settings, steps)
        expected = 0.5 * expected + 0.5 * scorer.table.detach()
    scorer, optimization = trained(settings, 4)
    before = [p.detach().clone() for p in scorer.parameters()]
    with optimization.averaged():
        assert torch.allclose(scorer.table, expected, atol=1e-6)
    assert all(torch.equal(a, b) for a, b in zip(before, scorer.parameters(), strict=True))


@pytest.mark.parametrize("settings", [{}, {"optimizer": "lazy-adam"}, {"clip_norm": 0.1}])
def test_the_norm_is_that_of_the_whole_gradient(settings: dict[str, Any]) -> None:
    plain = Tables()
    plain.loss(3).backward()
    expected = sum(float(p.grad.square().sum()) for p in plain.parameters() if p.grad is not None)
    scorer = Tables()
    optimization = optimization_for(scorer, **settings)
    with optimization.collecting():
        scorer.loss(3).backward()
    assert float(optimization.step()) == pytest.approx(expected**0.5, rel=1e-5)


def test_gradients_are_deferred_unless_they_are_clipped() -> None:
    for clip in (0.0, 1.0):
        scorer = Tables()
        optimization = optimization_for(scorer, clip_norm=clip)
        assert isinstance(optimization.optimizer, Adam)
        with optimization.collecting():
            scorer.loss(0).backward()
        assert (scorer.table.grad is None) == (not clip)
