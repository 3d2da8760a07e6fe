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


def learn(of: Information, steps: int, draw: object, lr: float = 1e-3) -> None:
    optimizer = torch.optim.Adam(of.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (-draw(True).sum()).backward()  # type: ignore[operator]
        optimizer.step()


@pytest.mark.parametrize("nats", [0.5, 1.0, 2.0])
@pytest.mark.slow
def test_mine_estimates_the_information_of_gaussians_within_15_percent(nats: float) -> None:
    torch.manual_seed(0)
    of, source = Mine(2, ONE_PAIR, 4, rng()), rng(1)
    both = torch.ones(1, 1024, dtype=torch.bool)

    def bound(learning: bool) -> Tensor:
        first, second = correlated(nats, of.width, 1024, source)[:, None]
        return of.bound_of_pairs(first, second, both, learning=learning)

    learn(of, 1000, bound)
    with torch.no_grad():
        found = float(torch.stack([bound(False) for _ in range(100)]).mean())
    assert found == pytest.approx(nats, rel=0.15)


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_equal_views_share_more_than_independent_views(name: str) -> None:
    torch.manual_seed(0)
    pairs = torch.tensor([[0, 1], [0, 2], [1, 2]])
    of, source = ESTIMATORS[name](3, pairs, 6, rng()), rng(1)
    present = torch.ones(3, 256, dtype=torch.bool)

    def bound(learning: bool) -> Tensor:
        x, other = torch.randn(2, 256, 6, generator=source)
        codes = of.codes(torch.stack([x, x, other]), present)
        return of.bound(codes, present, learning=learning)

    learn(of, 250, bound, 3e-3)
    with torch.no_grad():
        same, *apart = torch.stack([bound(False) for _ in range(20)]).mean(0).tolist()
    assert same > 0.3
    assert max(apart) < same / 3


@pytest.mark.slow
def test_two_noisy_copies_of_a_gaussian_code_share_half_its_width_times_log_four_thirds() -> None:
    torch.manual_seed(0)
    of, both = Mine(2, ONE_PAIR, 4, rng()), torch.ones(1, 1024, dtype=torch.bool)

    def bound(learning: bool) -> Tensor:
        code = torch.randn(1, 1024, of.width)
        first, second = code + torch.randn(2, 1, 1024, of.width)
        return of.bound_of_pairs(first, second, both, learning=learning)

    learn(of, 1000, bound)
    with torch.no_grad():
        found = float(torch.stack([bound(False) for _ in range(100)]).mean())
    assert found == pytest.approx(of.width / 2 * math.log(4 / 3), rel=0.15)


def test_codes_have_mean_0_and_variance_1_over_present_training_rows() -> None:
    of = Mine(2, ONE_PAIR, 5, rng())
    rows = torch.randn(2, 50, 5, generator=rng(1))
    present = torch.rand(2, 50, generator=rng(2)) < 0.7
    codes = of.codes(rows, present, 40)
    for v in range(2):
        kept = codes[v, :40][present[v, :40]]
        torch.testing.assert_close(kept.mean(0), torch.zeros(8), atol=1e-5, rtol=0)
        torch.testing.assert_close(kept.var(0, unbiased=False), torch.ones(8), atol=1e-3, rtol=0)
    other = rows.clone()
    other[0, ~present[0]] = 1e3
    torch.testing.assert_close(of.codes(other, present, 40)[0][present[0]], codes[0][present[0]])


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_rows_without_a_view_do_not_contribute_and_get_no_gradient(name: str) -> None:
    of = ESTIMATORS[name](2, ONE_PAIR, 5, rng())
    present = torch.ones(2, 20, dtype=torch.bool)
    present[1, 12:] = False
    rows = torch.randn(2, 20, 5, generator=rng(1))
    found = []
    for junk in (0.0, 7.0):
        seen = rows.clone()
        seen[:, 12:] += junk
        # Rows with one view contribute to the mean and variance of that view only.
        seen[0, 12:] = rows[0, 12:]
        seen.requires_grad_()
        torch.manual_seed(3)
        codes = of.codes(seen, present)
        total = of.bound(codes, present)
        (slope,) = torch.autograd.grad(total.sum(), seen, retain_graph=True)
        assert not slope[1, 12:].any()
        added = of.pointwise(codes, present)[of.have_both(present)]
        found.append(torch.cat([total, added]).detach())
    torch.testing.assert_close(found[0], found[1])


@pytest.mark.parametrize("name", list(ESTIMATORS))
def test_a_pair_without_rows_has_zero_information_and_finite_gradients(name: str) -> None:
    of = ESTIMATORS[name](2, ONE_PAIR, 5, rng())
    present = torch.zeros(2, 9, dtype=torch.bool)
    rows = torch.randn(2, 9, 5, generator=rng(1), requires_grad=True)
    total = of.bound(of.codes(rows, present), present, learning=True)
    total.sum().backward()
    torch.testing.assert_close(total.detach(), torch.zeros(1), atol=1e-6, rtol=0)
    assert of.pointwise(of.codes(rows, present), present).isfinite().all()
    assert all(p.grad is None or p.grad.isfinite().all() for p in of.parameters())


def test_the_mean_of_pointwise_estimates_is_the_bound_of_soft_bins() -> None:
    of = SoftBin(2, ONE_PAIR, 5, rng())
    present = torch.rand(2, 30, generator=rng(2)) < 0.8
    codes = of.codes(torch.randn(2, 30, 5, generator=rng(1)), present)
    mean = mean_over(of.pointwise(codes, present), of.have_both(present))
    torch.testing.assert_close(mean, of.bound(codes, present))


def test_soft_bins_of_a_view_with_itself_share_their_entropy() -> None:
    """Where codes are one-hot, P is diagonal: the information is the entropy of the bins."""
    of = SoftBin(2, ONE_PAIR, 5, rng())
    bins = torch.tensor([0] * 4 + [1] * 2 + [2] * 2)
    codes = 100 * torch.nn.functional.one_hot(bins, SoftBin.width).float().expand(2, -1, -1)
    present = torch.ones(2, 8, dtype=torch.bool)
    entropy = 0.5 * math.log(2) + 2 * 0.25 * math.log(4)
    assert float(of.bound(codes, present)) == pytest.approx(entropy, rel=1e-4)


def test_club_includes_the_variance_in_its_likelihood() -> None:
    """With zero weights q is N(0, 1): log q(z) = -|z|^2 / 2."""
    of = Club(2, ONE_PAIR, 5, rng())
    with torch.no_grad():
        of.outer.zero_()
    z = torch.randn(1, 7, 8, generator=rng(1))
    torch.testing.assert_close(of.likelihood(z, z), -0.5 * z.square().sum(-1))


def test_the_gradient_of_mine_divides_by_the_running_partition() -> None:
    of = Mine(2, ONE_PAIR, 5, rng())
    first, second = correlated(1.0, 8, 64, rng(1))[:, None]
    both = torch.ones(1, 64, dtype=torch.bool)

    def slope(learning: bool, held: float) -> Tensor:
        torch.manual_seed(0)
        of.log_partition.fill_(held)
        (found,) = torch.autograd.grad(
            of.bound_of_pairs(first, second, both, learning=learning).sum(),
            of.outer,
            retain_graph=False,
        )
        return found

    torch.manual_seed(0)
    shuffled, _ = shuffle(second, both)
    with torch.no_grad():
        z = float(log_mean_exp(of.statistic(first, shuffled), both).exp())
    joint = torch.autograd.grad(mean_over(of.statistic(first, second), both).sum(), of.outer)[0]
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
    both = torch.zeros(4, 30, dtype=torch.bool)
    both[0, [3, 17]] = both[1, 10:15] = both[2, 9] = True
    for _ in range(20):
        moved, apart = shuffle(rows, both)
        assert torch.equal(apart.sum(1), torch.tensor([2, 5, 0, 0]))
        for pair in (0, 1):
            kept, met = rows[pair][both[pair]], moved[pair][both[pair]]
            assert not (met == kept).any()
            assert torch.equal(met.flatten().sort().values, kept.flatten())


def test_mine_learns_nothing_from_a_pair_with_a_single_row() -> None:
    of = Mine(2, ONE_PAIR, 5, rng())
    first, second = torch.randn(2, 1, 6, of.width, generator=rng(1))
    both = torch.tensor([[False, True, False, False, False, False]])
    of.log_partition.fill_(0.7)
    found = of.bound_of_pairs(first, second, both, learning=True)
    found.sum().backward()
    assert not found.any()
    assert of.log_partition == pytest.approx(0.7)
    assert not any(p.grad.any() for p in of.parameters() if p.grad is not None)


def test_log_mean_exp_of_rows_in_the_mask() -> None:
    values = torch.tensor([[0.0, math.log(3), 99.0], [5.0, 5.0, 5.0]])
    counts = torch.tensor([[True, True, False], [False, False, False]])
    torch.testing.assert_close(log_mean_exp(values, counts), torch.tensor([math.log(2), 0.0]))


def test_pairwise_and_batched_statistics_have_the_same_values_and_gradients() -> None:
    of = Mine(3, torch.tensor([[0, 1], [0, 2], [1, 2]]), 4, rng()).double()
    with torch.no_grad():
        of.inner_bias.normal_(generator=rng(1))
    codes = torch.randn(2, 3, 7, of.width, generator=rng(2), dtype=torch.float64)
    first, second = (code.clone().requires_grad_() for code in codes)
    inputs = torch.cat([first, second, first * second], -1)
    hidden = (torch.einsum("pnc,pch->pnh", inputs, of.inner) + of.inner_bias).clamp_min(0)
    restated = torch.einsum("pnh,ph->pn", hidden, of.outer[..., 0])
    with torch.no_grad():
        torch.testing.assert_close(of.statistic(first, second), restated)
    seeds = torch.randn(3, 7, generator=rng(3), dtype=torch.float64)
    made_of = (first, second, of.inner, of.inner_bias, of.outer)
    slopes = torch.autograd.grad(restated, made_of, seeds)
    assert all(slope.abs().max() > 0 for slope in slopes)
    for found in (of.statistic(first, second), of.batched_statistic(first, second)):
        torch.testing.assert_close(found, restated)
        torch.testing.assert_close(torch.autograd.grad(found, made_of, seeds), slopes)
