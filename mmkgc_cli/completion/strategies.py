"""The completion strategies by name, and how each generates vectors."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkgc_cli.completion.kernel import gaussian_process
from mmkgc_cli.completion.problem import CompletionProblem, SparseMatrix
from mmkgc_cli.completion.regression import ridge_regression
from mmkgc_cli.errors import UsageError, nearest
from mmkgc_cli.features.seeded_random import digests, normals

ITERATIONS = 40
FOLDS = 5


@dataclass(frozen=True, eq=False)
class GeneratedVectors:
    """Vectors that a strategy generated for some entities.

    Attributes:
        vectors: float32 ``[k, d]``.
        fallback: bool ``[k]``, True where the strategy had no information and used its fallback.
        settings: the hyper-parameters that were used.
    """

    vectors: Tensor
    fallback: Tensor
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy:
    """A way to generate vectors.

    Attributes:
        name: value of ``--strategy``.
        generate: ``(problem, entities, iterations)`` to the vectors of `entities`, int64 ``[k]``.
        uses_triples: whether train triples influence the vectors.
        excludes_own: True if the vector of an observed entity is generated without its own vector,
            or if the method requires it. Other strategies are cross-fitted (`cross_fit`).
        uses_vectors: whether observed vectors influence the vectors. Strategies without are
            baselines, which ``auto`` measures but never selects.
        fallback: what an entity gets when the strategy has no information about it.
    """

    name: str
    generate: Callable[[CompletionProblem, Tensor, int], GeneratedVectors]
    uses_triples: bool = True
    excludes_own: bool = False
    uses_vectors: bool = True
    fallback: str = "the mean of the observed vectors"


def find_strategy(name: str) -> Strategy:
    """Finds a strategy by name.

    Raises:
        UsageError: when the name is unknown; names the nearest one.
    """
    if name not in STRATEGIES:
        raise UsageError(f"unknown strategy {name!r}", fix=nearest(name, [*STRATEGIES, *TRAINED]))
    return STRATEGIES[name]


def cross_fit(
    strategy: Strategy, problem: CompletionProblem, entities: Tensor, iterations: int
) -> GeneratedVectors:
    """Generates vectors of `entities`, those of observed ones without their own vectors.

    Strategies without `excludes_own` are fitted `FOLDS` times. Each fit leaves out one fold of the
    observed vectors and generates that fold.
    """
    is_observed = problem.observed[entities]
    if strategy.excludes_own or not bool(is_observed.any()):
        return strategy.generate(problem, entities, iterations)
    vectors = torch.empty(len(entities), problem.vectors.shape[1])
    fallback = torch.zeros(len(entities), dtype=torch.bool)
    settings: Mapping[str, Any] = {}
    if not bool(is_observed.all()):
        output = strategy.generate(problem, entities[~is_observed], iterations)
        vectors[~is_observed], fallback[~is_observed] = output.vectors, output.fallback
        settings = output.settings
    fold_of = torch.full_like(problem.observed, -1, dtype=torch.int64)
    fold_of[problem.observed_ids] = problem.partition("fold", FOLDS)
    for fold in range(FOLDS):
        if bool((in_fold := fold_of[entities] == fold).any()):
            rest = problem.with_observed(problem.observed & (fold_of != fold))
            output = strategy.generate(rest, entities[in_fold], iterations)
            vectors[in_fold], fallback[in_fold] = output.vectors, output.fallback
            settings = settings or output.settings
    return GeneratedVectors(vectors, fallback, {**settings, "folds": FOLDS})


def _constant(value: float) -> Callable[[CompletionProblem, Tensor, int], GeneratedVectors]:
    def generate(problem: CompletionProblem, entities: Tensor, iterations: int) -> GeneratedVectors:
        return _without_fallback(torch.full((len(entities), problem.vectors.shape[1]), value))

    return generate


def _random(problem: CompletionProblem, entities: Tensor, iterations: int) -> GeneratedVectors:
    """N(0, 1), determined by seed, modality and entity name (the baseline of MACO)."""
    names = [problem.names[i] for i in entities.tolist()]
    keys = digests("complete", problem.seed, [problem.modality], names)
    width = problem.vectors.shape[1]
    return _without_fallback(torch.from_numpy(np.ascontiguousarray(normals(keys, width))))


def _mean(problem: CompletionProblem, entities: Tensor, iterations: int) -> GeneratedVectors:
    """The mean of the observed vectors, without the entity's own vector."""
    return _without_fallback(_means_of_others(problem, entities).float())


def _means_of_others(problem: CompletionProblem, entities: Tensor) -> Tensor:
    """Mean of the observed vectors of all other entities, float64 ``[k, d]``; zero if none."""
    is_observed = problem.observed[entities, None]
    own_vectors = torch.where(is_observed, problem.vectors[entities].double(), 0.0)
    count = int(problem.observed.sum()) - is_observed.long()
    return (problem.vector_sum - own_vectors) / count.clamp(min=1)


def _neighbours(problem: CompletionProblem, entities: Tensor, iterations: int) -> GeneratedVectors:
    """Mean of the observed neighbours, first within each relation and direction."""
    target, source, relation = problem.target, problem.source, problem.relation
    is_observed = problem.observed.numpy()[source]
    target, source, relation = target[is_observed], source[is_observed], relation[is_observed]
    groups, group, size = np.unique(
        target * problem.relations + relation, return_inverse=True, return_counts=True
    )
    groups_of_target = np.bincount(groups // problem.relations, minlength=len(problem.names))
    weight = 1.0 / (size[group] * groups_of_target[target])
    matrix = SparseMatrix.from_entries(target, source, weight, len(problem.names)).rows(entities)
    return _with_mean_fallback(
        problem, entities, matrix @ problem.centred + problem.mean, matrix.ptr.diff() == 0
    )


def _propagation(problem: CompletionProblem, entities: Tensor, iterations: int) -> GeneratedVectors:
    """Feature propagation (Rossi et al., 2021, eq. 4): X <- D^-1/2 A D^-1/2 X, observed rows fixed.

    A counts the edges between two entities. Vectors are centred, so entities that no observed
    vector reaches get the mean.
    """
    n = len(problem.names)
    degree = np.bincount(problem.target, minlength=n).astype(np.float64)
    weight = 1 / np.sqrt(degree[problem.target] * degree[problem.source])
    free = (~problem.observed).nonzero()[:, 0]
    matrix = SparseMatrix.from_entries(problem.target, problem.source, weight, n).rows(free)
    values = problem.centred.clone()
    reached = problem.observed.float()[:, None].clone()
    for _ in range(iterations):
        values[free] = matrix @ values
        reached[free] = ((matrix @ reached) > 0).float()
    return _with_mean_fallback(
        problem, entities, values[entities] + problem.mean, reached[entities, 0] == 0,
        {"iterations": iterations},
    )  # fmt: skip


def _ridge(problem: CompletionProblem, entities: Tensor, iterations: int) -> GeneratedVectors:
    vectors, informed, penalties = ridge_regression(problem, entities)
    return _with_mean_fallback(problem, entities, vectors, ~informed, {"penalties": penalties})


def _kernel(problem: CompletionProblem, entities: Tensor, iterations: int) -> GeneratedVectors:
    vectors, informed, settings = gaussian_process(problem, entities)
    return _with_mean_fallback(problem, entities, vectors, ~informed, settings)


def _without_fallback(vectors: Tensor) -> GeneratedVectors:
    return GeneratedVectors(vectors, torch.zeros(len(vectors), dtype=torch.bool))


def _with_mean_fallback(
    problem: CompletionProblem, entities: Tensor, vectors: Tensor, fallback: Tensor,
    settings: Mapping[str, Any] | None = None,
) -> GeneratedVectors:  # fmt: skip
    means = _means_of_others(problem, entities)
    return GeneratedVectors(
        torch.where(fallback[:, None], means, vectors.double()).float(), fallback, settings or {}
    )


# Strategies with a training run; `runs.completion` supplies their `Strategy`.
TRAINED = ("maco",)
STRATEGIES = {
    strategy.name: strategy
    for strategy in (
        Strategy("random", _random, uses_triples=False, excludes_own=True, uses_vectors=False),
        Strategy("one", _constant(1.0), uses_triples=False, excludes_own=True, uses_vectors=False),
        Strategy("zero", _constant(0.0), uses_triples=False, excludes_own=True, uses_vectors=False),
        Strategy("mean", _mean, uses_triples=False, excludes_own=True),
        Strategy("neighbours", _neighbours, excludes_own=True),
        Strategy("propagation", _propagation),
        Strategy("ridge", _ridge),
        Strategy("kernel", _kernel),
    )
}
