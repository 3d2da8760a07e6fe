from __future__ import annotations

import math
from typing import Any

import pytest

from mmkgc_cli.errors import UsageError
from mmkgc_cli.runs.batches.summary import gains


def rows(results: dict[str, dict[int, float]], **about: Any) -> list[dict[str, Any]]:
    common = {"graph": "g", "scorer": "ikrl", "rate": 0.4, "varied": {}, **about}
    return [
        {**common, "strategy": strategy, "seed": seed, "metrics": {"mrr": mrr}}
        for strategy, of_seed in results.items()
        for seed, mrr in of_seed.items()
    ]


def test_a_gain_is_the_mean_difference_of_the_same_seeds_with_its_standard_error() -> None:
    found = rows({"random": {0: 0.1, 1: 0.5, 2: 0.3}, "ridge": {2: 0.36, 0: 0.12, 1: 0.54, 3: 0.9}})
    (gain,) = gains(found, "random")
    # Differences 0.02, 0.04 and 0.06; the seed that random lacks has no part.
    assert (gain.strategy, gain.seeds, gain.verdict) == ("ridge", 3, "gain")
    assert gain.mean == pytest.approx(0.04)
    assert gain.error == pytest.approx(0.02 / math.sqrt(3))
    (back,) = gains(found, "ridge")
    assert back.mean == pytest.approx(-0.04)
    assert back.verdict == "loss"


@pytest.mark.parametrize(
    ("differences", "verdict"),
    [
        ([0.0, 0.2], "none"),  # mean 0.1, standard error 0.1
        ([0.1, 0.2], "gain"),  # mean 0.15, standard error 0.05
        ([0.0, 0.0], "none"),
        ([0.3], "one seed says nothing"),
    ],
)
def test_less_than_two_standard_errors_are_no_gain(differences: list[float], verdict: str) -> None:
    base = dict.fromkeys(range(len(differences)), 0.5)
    other = {seed: 0.5 + difference for seed, difference in enumerate(differences)}
    (gain,) = gains(rows({"random": base, "ridge": other}), "random")
    assert gain.verdict == verdict


def test_only_jobs_that_are_else_alike_are_compared() -> None:
    found = rows({"random": {0: 0.1}, "ridge": {0: 0.2}}) + rows({"ridge": {0: 0.9}}, rate=0.8)
    found += rows({"random": {0: 0.3}, "ridge": {0: 0.2}}, varied={"model.dim": 8})
    assert [(g.rate, g.varied, round(g.mean, 9)) for g in gains(found, "random")] == [
        (0.4, (), 0.1),
        (0.4, (("model.dim", "8"),), -0.1),
    ]


def test_a_strategy_without_results_is_refused_with_the_nearest() -> None:
    found = rows({"random": {0: 0.1}, "ridge": {0: 0.2}})
    with pytest.raises(
        UsageError, match="--against rigde: no results of that strategy; did you mean 'ridge'"
    ):
        gains(found, "rigde")
    with pytest.raises(UsageError, match="none is known"):
        gains([{**row, "metrics": {}} for row in found], "ridge")
