"""Estimators of mutual information: closed forms, masks and gradients."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from mmkgc_cli.nn.mutual_information import (
    ESTIMATORS,
    Club,
    Information,
    Mine,
    SoftBin,
    log_mean_exp,
    mean_over,
    shuffle,
)

ONE_PAIR = torch.tensor([[0, 1]])


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def correlated(nats: float, dims: int, n: int, generator: torch.Generator) -> Tensor:
    """Two Gaussians ``[2, n, dims]`` with `nats` of mutual information."""
    rho = math.sqrt(1 - math.exp(-2 * nats / dims))
    x, noise = torch.randn(2, n, dims, generator=generator)
    return torch.stack([x, rho * x + math.sqrt(1 - rho**2) * noise])


def learn(estimator: Information, steps: int, draw: object, lr: float = 1e-3) -> None:
    optimizer = torch.optim.Adam(estimator.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (-draw(True).sum()).backward()  # type: ignore[operator]
        optimizer.step()


@pytest.mark.parametrize("nats", [0.5, 1.0, 2.0])
@pytest.mark.slow
def test_mine_estimates_the_information_of_gaussians_within_15_percent(nats: float) -> None:
    torch.manual_seed(0)
    estimator, source = Mine(2, ONE_PAIR, 4, rng()), rng(1)
    mask = torch.ones(1, 1024, dtype=torch.bool)

    def bound(learning: bool) -> Tensor:
        first, second = correlated(nats, estimator.width, 1024, source)[:, None]
        return estimator.bound_of_pairs(first, second, mask, learning=learning)

    learn(estimator, 1000, bound)
    with torch.no_grad():
        actual = float(torch.stack([bound(False) for _ in range(100)]).mean())
    assert actual == pytest.approx(nats, rel=0.15)


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_equal_views_share_more_than_independent_views(name: str) -> None:
    torch.manual_seed(0)
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2]])
    estimator, source = ESTIMATORS[name](3, pairs, 6, rng()), rng(1)
    present = torch.ones(3, 256, dtype=torch.bool)

    def bound(learning: bool) -> Tensor:
        x, other = torch.randn(2, 256, 6, generator=source)
        codes = estimator.codes(torch.stack([x, x, other]), present)
        return estimator.bound(codes, present, learning=learning)

    learn(estimator, 250, bound, 3e-3)
    with torch.no_grad():
        same, *apart = torch.stack([bound(False) for _ in range(20)]).mean(0).tolist()
    assert same > 0.3
    assert max(apart) < same / 3


@pytest.mark.slow
def test_two_noisy_copies_of_a_gaussian_code_share_half_its_width_times_log_four_thirds() -> None:
    torch.manual_seed(0)
    estimator, mask = Mine(2, ONE_PAIR, 4, rng()), torch.ones(1, 1024, dtype=torch.bool)

    def bound(learning: bool) -> Tensor:
        code = torch.randn(1, 1024, estimator.width)
        first, second = code + torch.randn(2, 1, 1024, estimator.width)
        return estimator.bound_of_pairs(first, second, mask, learning=learning)

    learn(estimator, 1000, bound)
    with torch.no_grad():
        actual = float(torch.stack([bound(False) for _ in range(100)]).mean())
    assert actual == pytest.approx(estimator.width / 2 * math.log(4 / 3), rel=0.15)


def test_codes_have_mean_0_and_variance_1_over_present_training_rows() -> None:
    estimator = Mine(2, ONE_PAIR, 5, rng())
    rows = torch.randn(2, 50, 5, generator=rng(1))
    present = torch.rand(2, 50, generator=rng(2)) < 0.7
    codes = estimator.codes(rows, present, 40)
    for v in range(2):
        selected = codes[v, :40][present[v, :40]]
        torch.testing.assert_close(selected.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(
            selected.var(0, unbiased=False), torch.ones(8), atol=1e-3, rtol=0
        )
    other = rows.clone()
    other[0, ~present[0]] = 1e3
    torch.testing.assert_close(
        estimator.codes(other, present, 40)[0][present[0]], codes[0][present[0]]
    )


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_rows_without_a_view_do_not_contribute_and_get_no_gradient(name: str) -> None:
    estimator = ESTIMATORS[name](2, ONE_PAIR, 5, rng())
    present = torch.ones(2, 20, dtype=torch.bool)
    present[1, 12:] = False
    rows = torch.randn(2, 20, 5, generator=rng(1))
    actual = []
    for junk in (0.0, 7.0):
        inputs = rows.clone()
        inputs[:, 12:] += junk
        # Rows with one view contribute to the mean and variance of that view only.
        inputs[0, 12:] = rows[0, 12:]
        inputs.requires_grad_()
        torch.manual_seed(3)
        codes = estimator.codes(inputs, present)
        total = estimator.bound(codes, present)
        (slope,) = torch.autograd.grad(total.sum(), inputs, retain_graph=True)
        assert not slope[1, 12:].any()
        added = estimator.pointwise(codes, present)[estimator.have_both(present)]
        actual.append(torch.cat([total, added]).detach())
    torch.testing.assert_close(actual[0], actual[1])


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_a_pair_without_rows_has_zero_information_and_finite_gradients(name: str) -> None:
    estimator = ESTIMATORS[name](2, ONE_PAIR, 5, rng())
    present = torch.zeros(2, 9, dtype=torch.bool)
    rows = torch.randn(2, 9, 5, generator=rng(1), requires_grad=True)
    total = estimator.bound(estimator.codes(rows, present), present, learning=True)
    total.sum().backward()
    torch.testing.assert_close(total.detach(), torch.zeros(1), atol=1e-6, rtol=0)
    assert estimator.pointwise(estimator.codes(rows, present), present).isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in estimator.parameters())


def test_the_mean_of_pointwise_estimates_is_the_bound_of_soft_bins() -> None:
    estimator = SoftBin(2, ONE_PAIR, 5, rng())
    present = torch.rand(2, 30, generator=rng(2)) < 0.8
    codes = estimator.codes(torch.randn(2, 30, 5, generator=rng(1)), present)
    mean = mean_over(estimator.pointwise(codes, present), estimator.have_both(present))
    torch.testing.assert_close(mean, estimator.bound(codes, present))


def test_soft_bins_of_a_view_with_itself_share_their_entropy() -> None:
    """Where codes are one-hot, P is diagonal: the information is the entropy of the bins."""
    estimator = SoftBin(2, ONE_PAIR, 5, rng())
    bins = torch.tensor([0] * 4 + [1] * 2 + [2] * 2)
    codes = 100 * torch.nn.functional.one_hot(bins, SoftBin.width).float().expand(2, -1, -1)
    present = torch.ones(2, 8, dtype=torch.bool)
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert float(estimator.bound(codes, present)) == pytest.approx(entropy, rel=1e-4)


def test_club_includes_the_variance_in_its_likelihood() -> None:
    """With zero weights q is N(0, 1): log q(z) = -|z|^2 / 2."""
    estimator = Club(2, ONE_PAIR, 5, rng())
    with torch.no_grad():
        estimator.outer.zero_()
    z = torch.randn(1, 7, 8, generator=rng(1))
    torch.testing.assert_close(estimator.likelihood(z, z), -0.5 * z.square().sum(-1))


def test_the_gradient_of_mine_divides_by_the_running_partition() -> None:
    estimator = Mine(2, ONE_PAIR, 5, rng())
    first, second = correlated(1.0, 8, 64, rng(1))[:, None]
    mask = torch.ones(1, 64, dtype=torch.bool)

    def slope(learning: bool, held: float) -> Tensor:
        torch.manual_seed(0)
        estimator.log_partition.fill_(held)
        (actual,) = torch.autograd.grad(
            estimator.bound_of_pairs(first, second, mask, learning=learning).sum(),
            estimator.outer,
            retain_graph=False,
        )
        return actual

    torch.manual_seed(0)
    shuffled, _ = shuffle(second, mask)
    with torch.no_grad():
        z = float(log_mean_exp(estimator.statistic(first, shuffled), mask).exp())
    joint = torch.autograd.grad(
        mean_over(estimator.statistic(first, second), mask).sum(), estimator.outer
    )[0]
    plain = slope(False, 0.0)
    share = z / (0.99 * 2.0 + 0.01 * z)
    torch.testing.assert_close(slope(True, math.log(2.0)), joint + share * (plain - joint))


def test_shuffling_assigns_no_row_to_itself_and_rotates_pairs_differently() -> None:
    torch.manual_seed(0)
    rows = torch.arange(12.0).view(1, 12, 1).expand(8, -1, -1)
    moved, apart = shuffle(rows, torch.ones(8, 12, dtype=torch.bool))
    assert apart.all()
    assert not (moved == rows).any()
    for pair in moved:
        assert torch.equal(pair.flatten().sort().values, torch.arange(12.0))
    assert len({tuple(pair.flatten().tolist()) for pair in moved}) > 1


def test_shuffling_permutes_the_rows_in_the_mask() -> None:
    rows = torch.arange(30.0).view(1, 30, 1).expand(4, -1, -1)
    mask = torch.zeros(4, 30, dtype=torch.bool)
    mask[0, [3, 17]] = mask[1, 10:15] = mask[2, 9] = True
    for _ in range(20):
        moved, apart = shuffle(rows, mask)
        assert torch.equal(apart.sum(1), torch.tensor([2, 5, 0, 0]))
        for pair in (0, 1):
            selected, partners = rows[pair][mask[pair]], moved[pair][mask[pair]]
            assert not (partners == selected).any()
            assert torch.equal(partners.flatten().sort().values, selected.flatten())


def test_mine_learns_nothing_from_a_pair_with_a_single_row() -> None:
    estimator = Mine(2, ONE_PAIR, 5, rng())
    first, second = torch.randn(2, 1, 6, estimator.width, generator=rng(1))
    mask = torch.tensor([[False, True, False, False, False, False]])
    estimator.log_partition.fill_(0.7)
    actual = estimator.bound_of_pairs(first, second, mask, learning=True)
    actual.sum().backward()
    assert not actual.any()
    assert estimator.log_partition == pytest.approx(0.7)
    assert not any(p.grad.any() for p in estimator.parameters() if p.grad is not None)


def test_log_mean_exp_of_rows_in_the_mask() -> None:
    values = torch.tensor([[0.0, math.log(3), 99.0], [5.0, 5.0, 5.0]])
    counts = torch.tensor([[True, True, False], [False, False, False]])
    torch.testing.assert_close(log_mean_exp(values, counts), torch.tensor([math.log(2), 0.0]))


def test_pairwise_and_batched_statistics_have_the_same_values_and_gradients() -> None:
    estimator = Mine(3, torch.tensor([[0, 1], [0, 2], [1, 2]]), 4, rng()).double()
    with torch.no_grad():
        estimator.inner_bias.normal_(generator=rng(1))
    codes = torch.randn(2, 3, 7, estimator.width, generator=rng(2), dtype=torch.float64)
    first, second = (code.clone().requires_grad_() for code in codes)
    inputs = torch.cat([first, second, first * second], -1)
    hidden = (
        torch.einsum("pnc,pch->pnh", inputs, estimator.inner) + estimator.inner_bias
    ).clamp_min(0)
    restated = torch.einsum("pnh,ph->pn", hidden, estimator.outer[..., 0])
    with torch.no_grad():
        torch.testing.assert_close(estimator.statistic(first, second), restated)
    seeds = torch.randn(3, 7, generator=rng(3), dtype=torch.float64)
    made_of = (first, second, estimator.inner, estimator.inner_bias, estimator.outer)
    slopes = torch.autograd.grad(restated, made_of, seeds)
    assert all(slope.abs().max() > 0 for slope in slopes)
    for actual in (estimator.statistic(first, second), estimator.batched_statistic(first, second)):
        torch.testing.assert_close(actual, restated)
        torch.testing.assert_close(torch.autograd.grad(actual, made_of, seeds), slopes)
