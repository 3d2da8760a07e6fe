"""The strategies by name, and how each makes a vector for an entity."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkgc_cli.completion.kernel import kernel
from mmkgc_cli.completion.problem import Problem, Sparse
from mmkgc_cli.completion.regression import ridge
from mmkgc_cli.errors import UsageError, nearest
from mmkgc_cli.features.seeded_random import digests, normals

ITERATIONS = 40
FOLDS = 5


@dataclass(frozen=True, eq=False)
class Made:
    """Vectors of some entities.

    Attributes:
        vectors: float32 ``[k, d]``.
        fallback: bool ``[k]``, where the strategy knew nothing and the mean stands.
        settings: the hyper-parameters that led to them.
    """

    vectors: Tensor
    fallback: Tensor
    settings: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Strategy:
    """A way to make vectors.

    `make(problem, wanted, iterations)` returns those of the entities `wanted`, int64 ``[k]``. With
    `own`, it makes that of an observed entity without a look at the entity's own vector, or is
    defined by its look at it; the others are cross-fitted where such vectors are asked for
    (`without_own`). `structural` says whether train triples take part, and `learns` whether
    observed vectors do: the others are baselines, which are measured and never chosen. `fallback`
    is what stands where it knew nothing.
    """

    name: str
    make: Callable[[Problem, Tensor, int], Made]
    structural: bool = True
    own: bool = False
    learns: bool = True
    fallback: str = "the mean for want of anything better"


def strategy(name: str) -> Strategy:
    """The strategy of a name.

    Raises:
        UsageError: with the nearest name, when there is none.
    """
    if name not in STRATEGIES:
        raise UsageError(f"strategy {name!r}: {nearest(name, [*STRATEGIES, *TRAINED])}")
    return STRATEGIES[name]


def without_own(chosen: Strategy, problem: Problem, wanted: Tensor, iterations: int) -> Made:
    """Vectors of `wanted` entities, those of observed ones made without their own vectors.

    Strategies that would look are fitted `FOLDS` times, each time without a part of the observed
    vectors, and make that part.
    """
    seen = problem.observed[wanted]
    if chosen.own or not bool(seen.any()):
        return chosen.make(problem, wanted, iterations)
    vectors = torch.empty(len(wanted), problem.vectors.shape[1])
    fallback = torch.zeros(len(wanted), dtype=torch.bool)
    settings: Mapping[str, Any] = {}
    if not bool(seen.all()):
        made = chosen.make(problem, wanted[~seen], iterations)
        vectors[~seen], fallback[~seen], settings = made.vectors, made.fallback, made.settings
    part = torch.full_like(problem.observed, -1, dtype=torch.int64)
    part[problem.known] = problem.parts("fold", FOLDS)
    for fold in range(FOLDS):
        if bool((mine := part[wanted] == fold).any()):
            rest = problem.seeing(problem.observed & (part != fold))
            made = chosen.make(rest, wanted[mine], iterations)
            vectors[mine], fallback[mine] = made.vectors, made.fallback
            settings = settings or made.settings
    return Made(vectors, fallback, {**settings, "folds": FOLDS})


def _constant(value: float) -> Callable[[Problem, Tensor, int], Made]:
    def make(problem: Problem, wanted: Tensor, iterations: int) -> Made:
        return _all_made(torch.full((len(wanted), problem.vectors.shape[1]), value))

    return make


def _random(problem: Problem, wanted: Tensor, iterations: int) -> Made:
    """N(0, 1), from the seed, the modality and the name of an entity (MACO's baseline)."""
    names = [problem.names[i] for i in wanted.tolist()]
    found = digests("complete", problem.seed, [problem.modality], names)
    width = problem.vectors.shape[1]
    return _all_made(torch.from_numpy(np.ascontiguousarray(normals(found, width))))


def _mean(problem: Problem, wanted: Tensor, iterations: int) -> Made:
    """The mean of the observed vectors; of the others, for an observed entity."""
    return _all_made(_means(problem, wanted).float())


def _means(problem: Problem, wanted: Tensor) -> Tensor:
    """Means of the observed vectors of all other entities, float64 ``[k, d]``; zero of none."""
    seen = problem.observed[wanted, None]
    own = torch.where(seen, problem.vectors[wanted].double(), 0.0)
    return (problem.total - own) / (int(problem.observed.sum()) - seen.long()).clamp(min=1)


def _neighbours(problem: Problem, wanted: Tensor, iterations: int) -> Made:
    """The mean over relations and directions of the means over observed neighbours in each."""
    target, source, relation = problem.target, problem.source, problem.relation
    kept = problem.observed.numpy()[source]
    target, source, relation = target[kept], source[kept], relation[kept]
    group, size = np.unique(
        target * problem.relations + relation, return_inverse=True, return_counts=True
    )[1:]
    groups = np.bincount(
        np.unique(target * problem.relations + relation) // problem.relations,
        minlength=len(problem.names),
    )
    weight = 1.0 / (size[group] * groups[target])
    matrix = Sparse.of(target, source, weight, len(problem.names)).rows(wanted)
    return _else_mean(problem, wanted, matrix @ problem.centred + problem.mean,
                      matrix.ptr.diff() == 0)  # fmt: skip


def _propagation(problem: Problem, wanted: Tensor, iterations: int) -> Made:
    """Feature propagation (Rossi et al. 2021, eq. 4): X <- D^-1/2 A D^-1/2 X, observed rows kept.

    A counts the edges between two entities. Vectors are centred, so that what no vector reaches is
    at the mean.
    """
    n = len(problem.names)
    degree = np.bincount(problem.target, minlength=n).astype(np.float64)
    weight = 1 / np.sqrt(degree[problem.target] * degree[problem.source])
    free = (~problem.observed).nonzero()[:, 0]
    matrix = Sparse.of(problem.target, problem.source, weight, n).rows(free)
    values = problem.centred.clone()
    reached = problem.observed.float()[:, None].clone()
    for _ in range(iterations):
        values[free] = matrix @ values
        reached[free] = ((matrix @ reached) > 0).float()
    return _else_mean(problem, wanted, values[wanted] + problem.mean, reached[wanted, 0] == 0,
                      {"iterations": iterations})  # fmt: skip


def _ridge(problem: Problem, wanted: Tensor, iterations: int) -> Made:
    vectors, known, penalties = ridge(problem, wanted)
    return _else_mean(problem, wanted, vectors, ~known, {"penalties": penalties})


def _kernel(problem: Problem, wanted: Tensor, iterations: int) -> Made:
    vectors, known, settings = kernel(problem, wanted)
    return _else_mean(problem, wanted, vectors, ~known, settings)


def _all_made(vectors: Tensor) -> Made:
    return Made(vectors, torch.zeros(len(vectors), dtype=torch.bool))


def _else_mean(
    problem: Problem, wanted: Tensor, vectors: Tensor, fallback: Tensor,
    settings: Mapping[str, Any] | None = None,
) -> Made:  # fmt: skip
    means = _means(problem, wanted)
    return Made(
        torch.where(fallback[:, None], means, vectors.double()).float(), fallback, settings or {}
    )


# Strategies with a run of their own, which whoever trains them makes (`runs.completing`).
TRAINED = ("maco",)
STRATEGIES = {
    one.name: one
    for one in (
        Strategy("random", _random, structural=False, own=True, learns=False),
        Strategy("one", _constant(1.0), structural=False, own=True, learns=False),
        Strategy("zero", _constant(0.0), structural=False, own=True, learns=False),
        Strategy("mean", _mean, structural=False, own=True),
        Strategy("neighbours", _neighbours, own=True),
        Strategy("propagation", _propagation),
        Strategy("ridge", _ridge),
        Strategy("kernel", _kernel),
    )
}
