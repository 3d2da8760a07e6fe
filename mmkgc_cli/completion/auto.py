"""Selection of a strategy on a held-out tenth of the observed vectors."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmkgc_cli.completion.measuring import HeldOutVectors, Measures
from mmkgc_cli.completion.problem import CompletionProblem
from mmkgc_cli.completion.strategies import STRATEGIES, Strategy
from mmkgc_cli.errors import DataError

HELD_OUT_PARTS = 10


@dataclass(frozen=True)
class StrategyChoice:
    """Measures of all strategies, and the eligible one with the best centred cosine.

    Only strategies that use observed vectors are eligible. The others are baselines; a constant
    can have a positive centred cosine by chance.
    """

    best: str
    measures: dict[str, Measures]
    eligible: Sequence[str]

    @property
    def gain(self) -> float:
        """Centred cosine of the best eligible strategy minus that of the second best."""
        values = sorted(
            (self.measures[name].centred_cosine for name in self.eligible), reverse=True
        )
        return values[0] - values[1] if len(values) > 1 else 0.0


def choose_strategy(
    problem: CompletionProblem,
    iterations: int,
    strategies: Sequence[Strategy] = tuple(STRATEGIES.values()),
) -> StrategyChoice:
    """Measures strategies on a held-out tenth of the observed vectors.

    The tenth depends on entity names and the seed only.

    Raises:
        DataError: when fewer than two vectors are observed.
    """
    observed_ids = problem.observed_ids
    if len(observed_ids) < 2:
        raise DataError(
            f"{problem.modality}: strategy auto needs at least 2 observed vectors, got "
            f"{len(observed_ids)}",
            fix="name one with --strategy, such as --strategy mean",
        )
    parts = problem.partition("hold out", min(HELD_OUT_PARTS, len(observed_ids)))
    held_out = observed_ids[parts == 0]
    observed = problem.observed.clone()
    observed[held_out] = False
    rest = problem.with_observed(observed)
    truth = HeldOutVectors(problem.vectors[held_out], rest.mean)
    measures = {
        strategy.name: truth.measure(strategy.generate(rest, held_out, iterations).vectors)
        for strategy in strategies
    }
    eligible = [strategy.name for strategy in strategies if strategy.uses_vectors]
    best = max(eligible, key=lambda name: measures[name].centred_cosine)
    return StrategyChoice(best, measures, eligible)
