"""Complementarity weights, experts, projectors and fusions."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from mmkgc_cli.nn.complementarity import (
    Complementarity,
    Weighting,
    complementary_weights,
    symmetric,
)
from mmkgc_cli.nn.experts import LinearExperts, MlpExperts
from mmkgc_cli.nn.fusion import FUSIONS
from mmkgc_cli.nn.projections import Projector


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@given(st.integers(1, 5), st.integers(0, 2**32), st.sampled_from([0.5, 1.0, 3.0]))
def test_weights_are_a_softmax_of_minus_the_shared_information(
    views: int, seed: int, temperature: float
) -> None:
    table = torch.rand(4, views, views, generator=rng(seed), dtype=torch.float64)
    table = (table + table.mT).masked_fill(torch.eye(views, dtype=torch.bool), 0)
    available = torch.rand(4, views, generator=rng(seed + 1)) < 0.6
    available[:, 0] = True
    actual = complementary_weights(table, available, temperature)
    zero = torch.zeros((), dtype=torch.float64)
    for row, info, has in zip(actual, table, available, strict=True):
        powers = [
            has[i] * (-sum((info[i, j] for j in range(views) if has[j]), zero) / temperature).exp()
            for i in range(views)
        ]  # fmt: skip
        torch.testing.assert_close(row, torch.stack(powers) / sum(powers))
    torch.testing.assert_close(actual.sum(-1), torch.ones(4, dtype=torch.float64))


def test_views_that_share_information_weigh_less() -> None:
    """The first two share 0.97 nats, the third nothing."""
    values = torch.tensor([[0.97, 0.0, 0.0]])
    table = symmetric(values, torch.tensor([[0, 1], [0, 2], [1, 2]]), 3)
    torch.testing.assert_close(
        complementary_weights(table)[0], torch.tensor([0.2156, 0.2156, 0.5688]), atol=1e-4, rtol=0
    )


def trained(rows: Tensor, available: Tensor, per_entity: bool, steps: int) -> Complementarity:
    """Weights of modalities with the vectors `rows` [M, E, d]."""
    torch.manual_seed(0)
    weighting = Weighting(1, per_entity=per_entity, warmup=0, batch=128)
    weights = Complementarity(weighting, available, rows.shape[-1], rng())
    weights.epoch.fill_(2)
    assert weights.estimator is not None
    optimizer = torch.optim.Adam(weights.estimator.parameters(), lr=1e-2)
    for _ in range(steps):
        entities, n_training = weights.next_slice()
        optimizer.zero_grad()
        weights.estimator_loss(rows[:, entities], entities, n_training).backward()
        optimizer.step()
    return weights


def test_a_duplicated_modality_loses_weight_and_a_missing_one_has_none() -> None:
    x, other = torch.randn(2, 160, 6, generator=rng(1))
    available = torch.ones(160, 3, dtype=torch.bool)
    available[:20, 1] = False
    for per_entity in (True, False):
        module = trained(torch.stack([x, x, other]), available, per_entity, 120)
        assert not module.inter[:20, 1].any()
        torch.testing.assert_close(module.inter.sum(1), torch.ones(160))
        first, second, distinct = module.inter[20:].mean(0).tolist()
        assert distinct > 1.2 * max(first, second)
        assert abs(first - second) < 0.05
        assert (module.inter[20:].std(0) > 0).all() == per_entity


def test_weights_are_equal_until_the_estimator_is_trained() -> None:
    rows = torch.randn(3, 60, 4, generator=rng(1))
    available = torch.ones(60, 3, dtype=torch.bool)
    module = Complementarity(Weighting(1, warmup=3, batch=16), available, 4, rng())
    equal = module.inter.clone()
    for step in range(5):
        module.epoch.fill_(1 if step < 4 else 2)
        entities, n_training = module.next_slice()
        module.estimator_loss(rows[:, entities], entities, n_training)
        assert torch.equal(module.inter, equal) == (step < 4)


def recording(function: Callable[..., Tensor], results: list[Tensor]) -> Callable[..., Tensor]:
    """`function`, with its results added to `results`."""

    def call(*arguments: Tensor) -> Tensor:
        results.append(function(*arguments))
        return results[-1]

    return call


def test_the_deviation_of_an_entity_is_a_running_mean() -> None:
    rows = torch.randn(3, 40, 4, generator=rng(1))
    available = torch.ones(40, 3, dtype=torch.bool)
    module = Complementarity(Weighting(1, warmup=0), available, 4, rng())
    with torch.no_grad():
        module.get_parameter("estimator.outer").mul_(5)  # so that entities differ
    module.epoch.fill_(2)
    for _ in range(3):
        before = module.added.clone()
        recorded: list[Tensor] = []
        entities, n_training = module.next_slice()
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(module, "deviations", recording(module.deviations, recorded))
            module.estimator_loss(rows[:, entities], entities, n_training)
        wanted = 0.9 * before[entities] + 0.1 * torch.cat(recorded, 1).T
        torch.testing.assert_close(module.added[entities], wanted)
        assert float(recorded[0].mean(1).abs().max()) < 1e-5
        assert float(recorded[0].std()) > 0.01
        information = (module.shared + wanted).clamp(0, math.log(1024))
        expected = complementary_weights(
            symmetric(information, module.get_buffer("estimator.pairs"), 3)
        )
        torch.testing.assert_close(module.inter[entities], expected)


def test_slices_cover_all_entities_and_train_on_none_of_the_held_out_tenth() -> None:
    module = Complementarity(Weighting(2, batch=16), torch.ones(100, 2, dtype=torch.bool), 4, rng())
    assert len(module.held) == 10
    covered, trained_on = set(), set()
    for _ in range(6):
        entities, n_training = module.next_slice()
        assert len(set(entities.tolist())) == len(entities)
        trained_on |= set(entities[:n_training].tolist())
        covered |= set(entities.tolist())
        module.steps += 1
    assert covered == set(range(100))
    assert trained_on == covered - set(module.held.tolist())


@pytest.mark.parametrize("experts", [1, 3])
def test_the_merged_matrix_is_the_sum_of_experts(experts: int) -> None:
    module = LinearExperts(experts, 5, rng()).double()
    with torch.no_grad():
        module.bias.normal_(generator=rng(1))
    rows = torch.randn(9, 5, generator=rng(2), dtype=torch.float64)
    weights = torch.rand(experts, generator=rng(3), dtype=torch.float64)
    expected = sum(
        w * (rows - b) @ a for w, b, a in zip(weights, module.bias, module.weight, strict=True)
    )
    matrix, offset = module.merge(weights)
    torch.testing.assert_close(rows @ matrix - offset, expected)
    torch.testing.assert_close(module.mix(rows, weights), expected)
    torch.testing.assert_close(module.mix(rows, weights.expand(9, -1)), expected)


@pytest.mark.parametrize("make", [LinearExperts, MlpExperts])
def test_mixed_views_are_their_weighted_sum(make: type[LinearExperts | MlpExperts]) -> None:
    module = make(3, 4, rng()).double()
    rows = torch.randn(6, 4, generator=rng(1), dtype=torch.float64)
    weights = torch.rand(6, 3, generator=rng(2), dtype=torch.float64)
    expected = torch.einsum("nk,knd->nd", weights, module.views(rows))
    torch.testing.assert_close(module.mix(rows, weights), expected)
    expected = torch.einsum("k,knd->nd", weights[0], module.views(rows))
    torch.testing.assert_close(module.mix(rows, weights[0]), expected)


def test_linear_experts_start_near_the_identity() -> None:
    module = LinearExperts(2, 64, rng())
    off = module.weight.detach() - torch.eye(64)
    assert 0.018 < float(off.std()) < 0.022


def test_a_projector_is_two_layers_with_a_relu() -> None:
    module = Projector(3, 2, rng())
    rows = torch.randn(4, 3, generator=rng(1))
    expected = (rows @ module.first.T).clamp_min(0) @ module.second.T
    torch.testing.assert_close(module(rows), expected)
    assert float(module.first.detach().abs().max()) <= (6 / 5) ** 0.5


def test_fusions_ignore_missing_modalities() -> None:
    rows = torch.randn(2, 3, 4, generator=rng(1))
    available = torch.tensor([[True, True, False], [True, False, True]])
    for make in FUSIONS.values():
        module = make(3, 4, rng())
        junk = rows.clone()
        junk[~available] = 5.0
        torch.testing.assert_close(module(junk, available), module(rows, available))
    product = FUSIONS["product"](3, 4, rng())
    torch.testing.assert_close(product(rows, available)[0], rows[0, 0] * rows[0, 1])
    gate = FUSIONS["gate"](3, 4, rng())
    powers = (rows[0, :2].tanh() @ gate.get_parameter("direction")[0]).softmax(0)
    torch.testing.assert_close(gate(rows, available)[0], powers @ rows[0, :2])


def test_the_information_of_a_pair_is_a_plain_mean_of_the_first_estimates() -> None:
    available = torch.ones(40, 3, dtype=torch.bool)
    module = Complementarity(Weighting(1, warmup=0, batch=16), available, 4, rng())
    assert module.estimator is not None
    module.available[module.held, 2] = False  # so that pairs with the third have no estimates
    estimates = iter([1.0, 2.0, 6.0])

    def bound(codes: Tensor, present: Tensor, learning: bool = False) -> Tensor:
        return torch.full((3,), 0.0 if learning else next(estimates))

    module.estimator.bound = bound  # type: ignore[method-assign]
    for mean in (1.0, 1.5, 3.0):
        entities, n_training = module.next_slice()
        rows = torch.randn(3, len(entities), 4, generator=rng(1))
        module.estimator_loss(rows, entities, n_training)
        torch.testing.assert_close(module.shared, torch.tensor([mean, 0.0, 0.0]))


def test_pairs_that_no_held_out_entity_has_are_estimated_on_the_others() -> None:
    available = torch.ones(200, 3, dtype=torch.bool)
    held = Complementarity(Weighting(1), available, 6, rng()).held
    available[held, 2] = False
    x = torch.randn(160, 6, generator=rng(1))
    rows = torch.zeros(3, 200, 6)
    rows[:, :160] = x
    rows[:, 160:] = torch.randn(40, 6, generator=rng(2))
    module = trained(rows, available, False, 120)
    assert (module.told == 120).all()
    assert (module.shared > 0.3).all()
