"""Choosing a strategy: on a tenth of the observed vectors, hidden for the purpose."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from mmkgc_cli.completion.measuring import Measures, Truth
from mmkgc_cli.completion.problem import Problem
from mmkgc_cli.completion.strategies import STRATEGIES, Strategy
from mmkgc_cli.errors import DataError

PARTS = 10


@dataclass(frozen=True)
class Choice:
    """What was tried, and the best by centred cosine of what learns from vectors.

    The others are baselines: a constant may lie by chance a little towards what was held out.
    """

    best: str
    tried: dict[str, Measures]
    able: Sequence[str]  # those that may be chosen

    @property
    def gain(self) -> float:
        """By how much the best is ahead of the next that may be chosen, in centred cosine."""
        values = sorted((self.tried[name].centred_cosine for name in self.able), reverse=True)
        return values[0] - values[1] if len(values) > 1 else 0.0


def choose(
    problem: Problem, iterations: int, among: Sequence[Strategy] = tuple(STRATEGIES.values())
) -> Choice:
    """Tries strategies on a tenth of the observed vectors, drawn by name and seed.

    Raises:
        DataError: when fewer than two vectors are observed.
    """
    known = problem.known
    if len(known) < 2:
        raise DataError(
            f"{problem.modality}: auto hides a tenth of the observed vectors and needs 2 of them, "
            f"got {len(known)}; name a strategy"
        )
    held = known[problem.parts("hold out", min(PARTS, len(known))) == 0]
    observed = problem.observed.clone()
    observed[held] = False
    rest = problem.seeing(observed)
    truth = Truth(problem.vectors[held], rest.mean)
    tried = {one.name: truth.measure(one.make(rest, held, iterations).vectors) for one in among}
    able = [one.name for one in among if one.learns]
    return Choice(max(able, key=lambda name: tried[name].centred_cosine), tried, able)
