"""Gaussian-process regression of a vector on what the train triples say of its entity."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmkgc_cli.completion.problem import Problem, Sparse
from mmkgc_cli.completion.regression import regressors

# Up to so many observed entities the kernel matrix is solved as it is, which takes twice 600 MB;
# for more by way of inducing ones.
MOST_EXACT = 12288
INDUCING = 4096
# How fast entities become strangers: exp(-SHARPNESS) between two that have nothing in common.
SHARPNESS = 1.4
# The noise beside a prior variance of 1.
START, LEAST, MOST = 0.1, 1e-3, 1e3
_HELD_OUT = 10
_ROWS = 512
_PAIRS = 1 << 22


def kernel(problem: Problem, wanted: Tensor) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Vectors of the entities `wanted`, int64 ``[k]``: the posterior mean of a Gaussian process.

    Its covariance is exp(-SHARPNESS |u - v|^2 / 8) of the views of two entities (`Views`). No
    entity's own vector is in its views. Noise is chosen by the squared error on a tenth of the
    observed, from a fit on at most `INDUCING` of the rest. More than `MOST_EXACT` observed
    entities are fitted by the subset of regressors (Rasmussen and Williams 2006, eq. 8.14).

    Returns:
        float32 ``[k, d]``, bool ``[k]`` (False where an entity has no train triple, or nothing is
        observed), and the hyper-parameters.
    """
    known = problem.known
    linked = torch.from_numpy(np.bincount(problem.target, minlength=len(problem.names)) > 0)
    if not len(known):
        return torch.zeros(len(wanted), problem.vectors.shape[1]), linked[wanted] & False, {}
    noise = START
    if len(known) >= 2 * _HELD_OUT:
        noise = _chosen(problem)
    views = Views.of(problem)
    values = problem.centred[known]
    if len(known) <= MOST_EXACT:
        anchors = known
        weight = _exact(views.kernel(known, known), values, noise)
    else:
        anchors = known[_drawn(problem, known, INDUCING)]
        weight = _induced(views, anchors, known, values, noise)
    out = torch.cat([views.kernel(part, anchors) @ weight for part in torch.split(wanted, _ROWS)])
    settings = {"noise": noise, "inducing": len(anchors)}
    return (out + problem.mean).float(), linked[wanted], settings


@dataclass(frozen=True, eq=False)
class Views:
    """Four descriptions of each entity, of length 1 each, or 0 where there is nothing to describe.

    Attributes:
        dense: float32 ``[E, *]``: log counts per relation and direction, the mean of the observed
            neighbours, and that of the entities in the same contexts, side by side.
        contexts: ``[E, contexts]``, the contexts themselves, each weighed by the fourth root of one
            over how many entities have it.
        count: how many contexts there are.
        square: float32 ``[E]``, how many of the four there are.
    """

    dense: Tensor
    contexts: Sparse
    count: int
    square: Tensor

    @classmethod
    def of(cls, problem: Problem) -> Views:
        """The views of all entities; no entity's own vector is in them."""
        groups = regressors(problem)
        for group in groups:
            normalize(group, dim=1, eps=1e-9, out=group)
        dense = torch.cat(groups, dim=1)
        linked = torch.from_numpy(np.bincount(problem.target, minlength=len(problem.names)) > 0)
        return cls(
            dense, _contexts(problem), problem.contexts[1], dense.square().sum(dim=1) + linked
        )

    def kernel(self, rows: Tensor, columns: Tensor) -> Tensor:
        """The covariance of two lots of entities, float32 ``[rows, columns]``."""
        out = self.dense[rows] @ self.dense[columns].T
        chosen, members = self.contexts.rows(rows), self._members(columns)
        # Whose contexts have how many members: no more pairs at a time than memory is meant for.
        pairs = members.ptr.diff()[chosen.column].cumsum(0)
        after = torch.cat([pairs.new_zeros(1), pairs])[chosen.ptr]
        low = 0
        while low < len(rows):
            high = int(torch.searchsorted(after, after[low] + _PAIRS, right=True)) - 1
            high = min(max(high, low + 1), low + _ROWS, len(rows))
            out[low:high] += self._shared(rows[low:high], members, len(columns))
            low = high
        out.mul_(-2).add_(self.square[rows, None]).add_(self.square[columns])
        # Rounding takes equal entities a little below no distance at all.
        return out.clamp_(min=0).mul_(-SHARPNESS / 8).exp_()

    def _members(self, columns: Tensor) -> Sparse:
        """Which of the columns are in each context."""
        chosen = self.contexts.rows(columns)
        place = torch.repeat_interleave(torch.arange(len(columns)), chosen.ptr.diff())
        return Sparse.of(
            chosen.column.numpy(), place.numpy(), chosen.weight.numpy(), self.count
        )  # fmt: skip

    def _shared(self, rows: Tensor, members: Sparse, columns: int) -> Tensor:
        """Products of the contexts of some entities with those of the members."""
        chosen = self.contexts.rows(rows)
        row = torch.repeat_interleave(torch.arange(len(rows)), chosen.ptr.diff())
        found = members.rows(chosen.column)
        times = found.ptr.diff()
        flat = torch.repeat_interleave(row, times) * columns + found.column
        weight = torch.repeat_interleave(chosen.weight, times) * found.weight
        total = torch.bincount(flat, weights=weight, minlength=len(rows) * columns)
        return total.reshape(len(rows), columns).float()


def _contexts(problem: Problem) -> Sparse:
    context, total = problem.contexts
    n = len(problem.names)
    weight = 1 / np.sqrt(np.bincount(context, minlength=total)[context])
    weight /= np.bincount(problem.target, weights=weight, minlength=n)[problem.target]
    return Sparse.of(problem.target, context, np.sqrt(weight), n)


def _exact(covariance: Tensor, values: Tensor, noise: float) -> Tensor:
    """(K + noise I)^-1 Y."""
    covariance.diagonal().add_(noise)
    return torch.cholesky_solve(values, torch.linalg.cholesky(covariance))


def _induced(
    views: Views, anchors: Tensor, known: Tensor, values: Tensor, noise: float
) -> Tensor:  # fmt: skip
    """(K_mn K_nm + noise K_mm)^-1 K_mn Y, in float64 as the kernel comes in squared."""
    gram = noise * views.kernel(anchors, anchors).double()
    product = torch.zeros(len(anchors), values.shape[1], dtype=torch.float64)
    for part, rows in zip(torch.split(known, _ROWS), torch.split(values, _ROWS), strict=True):
        block = views.kernel(part, anchors).double()
        gram.addmm_(block.T, block)
        product.addmm_(block.T, rows.double())
    # What float32 entries are uncertain by.
    gram.diagonal().add_(1e-7 * len(known))
    return torch.cholesky_solve(product, torch.linalg.cholesky(gram)).float()


def _drawn(problem: Problem, among: Tensor, most: int) -> Tensor:
    """Places of at most so many of some observed entities, drawn by name, in order."""
    parts = torch.zeros_like(problem.observed, dtype=torch.int64)
    parts[problem.known] = problem.parts("inducing", max(1, len(problem.known)))
    return parts[among].argsort(stable=True)[:most].sort().values


def _chosen(problem: Problem) -> float:
    """The noise whose fit on the rest is nearest to a tenth of the observed vectors."""
    held = problem.known[problem.parts("kernel", _HELD_OUT) == 0]
    observed = problem.observed.clone()
    observed[held] = False
    rest = problem.seeing(observed)
    views = Views.of(rest)
    fitted = rest.known[_drawn(rest, rest.known, INDUCING)]
    covariance, across = views.kernel(fitted, fitted), views.kernel(held, fitted)
    values = (problem.vectors[held] - rest.mean).float()
    errors: dict[float, float] = {}

    def error(noise: float) -> float:
        if noise not in errors:
            made = across @ _exact(covariance.clone(), rest.centred[fitted], noise)
            errors[noise] = float((made - values).square().mean(dtype=torch.float64))
        return errors[noise]

    best = START
    # Up or down, a step at a time, for as long as it helps.
    for factor in (2.0, 0.5):
        while LEAST <= best * factor <= MOST and error(best * factor) < error(best):
            best *= factor
    return best
