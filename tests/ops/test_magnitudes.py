"""Kernels and references agree at magnitudes whose squares overflow or underflow."""

from __future__ import annotations

import pytest
import torch

from mmkgc_cli.ops import Metric, Pair, sampled_score
from mmkgc_cli.ops._arguments import flat_pairs
from mmkgc_cli.ops.sampled_score import reference
from tests.ops.conftest import native

MAGNITUDES = [0.0, 1e-45, 1e-42, 1e-38, 1e-30, 1e-23, 1e-20, 1e-10, 1.0, 1e10, 1e18, 1e20, 1e30]
MAGNITUDES += [3e38, torch.inf, torch.nan]


@native
@pytest.mark.parametrize("metric", Metric)
@pytest.mark.parametrize("magnitude", MAGNITUDES)
@pytest.mark.parametrize("width", [6, 64])
def test_scores_agree_at_every_magnitude(metric: Metric, magnitude: float, width: int) -> None:
    # All terms have one sign, so that no order of summation cancels infinities.
    rng = torch.Generator().manual_seed(0)
    queries = (1 + torch.rand(1, 5, width, generator=rng)) * magnitude
    table = torch.rand(19, width, generator=rng) * min(magnitude, 1e38)
    ids = torch.randint(19, (5, 9), generator=rng)
    side = torch.zeros(5, 9, dtype=torch.int8)
    numbers, weights = flat_pairs([Pair(0, 0, width)])
    expected = reference(queries, table, ids, side, int(metric), numbers, weights)
    scores = sampled_score(queries, table, ids, side, metric, [Pair(0, 0, width)])
    # A subnormal square is rounded by one unit (1.4e-45) more or less where a product is fused with
    # a sum. The root of a unit is 3.7e-23. Elsewhere squares are 0 or have all their bits.
    subnormal = 1e-24 < magnitude < 1e-18
    atol = width * 4e-23 if subnormal else 0.0
    torch.testing.assert_close(scores, expected, rtol=1e-5, atol=atol, equal_nan=True)
