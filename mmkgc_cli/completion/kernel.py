"""Gaussian-process regression of vectors on the train triples."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor
from torch.nn.functional import normalize

from mmkgc_cli.completion.problem import CompletionProblem, SparseMatrix
from mmkgc_cli.completion.regression import regressors

# Up to this number of observed entities the fit is exact and takes two matrices of 600 MB; above
# it, inducing entities are used.
MAX_EXACT = 12288
INDUCING = 4096
# Two entities that have nothing in common have covariance exp(-SHARPNESS).
SHARPNESS = 1.4
# Noise variance, relative to a prior variance of 1.
START, MIN_NOISE, MAX_NOISE = 0.1, 1e-3, 1e3
_HELD_OUT = 10
_ROWS = 512
_PAIRS = 1 << 22


def gaussian_process(
    problem: CompletionProblem, entities: Tensor
) -> tuple[Tensor, Tensor, dict[str, float]]:
    """Predicts vectors of `entities`, int64 ``[k]``: the posterior mean of a Gaussian process.

    The covariance of two entities is exp(-SHARPNESS |u - v|^2 / 8), where u and v are their
    descriptors (`EntityDescriptors`), which never include the entity's own vector. The noise
    minimizes the squared error on a held-out tenth of the observed vectors, with a fit on at most
    `INDUCING` of the rest. With more than `MAX_EXACT` observed entities, the subset of regressors
    is used (Rasmussen and Williams, 2006, eq. 8.14).

    Returns:
        Vectors float32 ``[k, d]``; a mask bool ``[k]``, False where an entity has no train triple
        or no vector is observed; and the hyper-parameters.
    """
    observed_ids = problem.observed_ids
    linked = torch.from_numpy(np.bincount(problem.target, minlength=len(problem.names)) > 0)
    if not len(observed_ids):
        return torch.zeros(len(entities), problem.vectors.shape[1]), linked[entities] & False, {}
    noise = START
    if len(observed_ids) >= 2 * _HELD_OUT:
        noise = _best_noise(problem)
    descriptors = EntityDescriptors.from_problem(problem)
    values = problem.centred[observed_ids]
    if len(observed_ids) <= MAX_EXACT:
        anchors = observed_ids
        weight = _exact_weights(descriptors.covariance(anchors, anchors), values, noise)
    else:
        anchors = observed_ids[_inducing_rows(problem, observed_ids, INDUCING)]
        weight = _inducing_weights(descriptors, anchors, observed_ids, values, noise)
    out = torch.cat(
        [descriptors.covariance(part, anchors) @ weight for part in torch.split(entities, _ROWS)]
    )
    settings = {"noise": noise, "inducing": len(anchors)}
    return (out + problem.mean).float(), linked[entities], settings


@dataclass(frozen=True, eq=False)
class EntityDescriptors:
    """Four descriptors of each entity, each of length 1, or 0 where it is undefined.

    Attributes:
        dense: float32 ``[E, *]``, three descriptors side by side: log counts per relation and
            direction, the mean of the observed neighbours, and the mean of the entities in the
            same contexts.
        contexts: ``[E, contexts]``, the contexts of each entity. A context that n entities share
            has a weight proportional to n^(-1/4).
        n_contexts: number of contexts.
        square: float32 ``[E]``, the squared length of all four, which is the number of those that
            are defined.
    """

    dense: Tensor
    contexts: SparseMatrix
    n_contexts: int
    square: Tensor

    @classmethod
    def from_problem(cls, problem: CompletionProblem) -> EntityDescriptors:
        """Describes all entities, without their own vectors."""
        groups = regressors(problem)
        for group in groups:
            normalize(group, dim=1, eps=1e-9, out=group)
        dense = torch.cat(groups, dim=1)
        linked = torch.from_numpy(np.bincount(problem.target, minlength=len(problem.names)) > 0)
        return cls(
            dense,
            _weighted_contexts(problem),
            problem.contexts[1],
            dense.square().sum(dim=1) + linked,
        )

    def covariance(self, rows: Tensor, columns: Tensor) -> Tensor:
        """Covariance of two sets of entities, float32 ``[rows, columns]``."""
        out = self.dense[rows] @ self.dense[columns].T
        row_contexts, members = self.contexts.rows(rows), self._members(columns)
        # Rows are grouped so that at most `_PAIRS` pairs of members are in memory at a time.
        pairs = members.ptr.diff()[row_contexts.column].cumsum(0)
        pairs_before = torch.cat([pairs.new_zeros(1), pairs])[row_contexts.ptr]
        low = 0
        while low < len(rows):
            limit = pairs_before[low] + _PAIRS
            high = int(torch.searchsorted(pairs_before, limit, right=True)) - 1
            high = min(max(high, low + 1), low + _ROWS, len(rows))
            out[low:high] += self._shared(rows[low:high], members, len(columns))
            low = high
        out.mul_(-2).add_(self.square[rows, None]).add_(self.square[columns])
        # Rounding can make the squared distance of equal entities slightly negative.
        return out.clamp_(min=0).mul_(-SHARPNESS / 8).exp_()

    def _members(self, columns: Tensor) -> SparseMatrix:
        """Positions in `columns` of the members of each context."""
        contexts = self.contexts.rows(columns)
        position = torch.repeat_interleave(torch.arange(len(columns)), contexts.ptr.diff())
        return SparseMatrix.from_entries(
            contexts.column.numpy(), position.numpy(), contexts.weight.numpy(), self.n_contexts
        )

    def _shared(self, rows: Tensor, members: SparseMatrix, columns: int) -> Tensor:
        """Inner products of the contexts of `rows` with those of the members."""
        contexts = self.contexts.rows(rows)
        row = torch.repeat_interleave(torch.arange(len(rows)), contexts.ptr.diff())
        pairs = members.rows(contexts.column)
        repeats = pairs.ptr.diff()
        flat = torch.repeat_interleave(row, repeats) * columns + pairs.column
        weight = torch.repeat_interleave(contexts.weight, repeats) * pairs.weight
        products = torch.bincount(flat, weights=weight, minlength=len(rows) * columns)
        return products.reshape(len(rows), columns).float()


def _weighted_contexts(problem: CompletionProblem) -> SparseMatrix:
    context, n_contexts = problem.contexts
    n = len(problem.names)
    weight = 1 / np.sqrt(np.bincount(context, minlength=n_contexts)[context])
    weight /= np.bincount(problem.target, weights=weight, minlength=n)[problem.target]
    return SparseMatrix.from_entries(problem.target, context, np.sqrt(weight), n)


def _exact_weights(covariance: Tensor, values: Tensor, noise: float) -> Tensor:
    """(K + noise I)^-1 Y; overwrites the diagonal of `covariance`."""
    covariance.diagonal().add_(noise)
    return torch.cholesky_solve(values, torch.linalg.cholesky(covariance))


def _inducing_weights(
    descriptors: EntityDescriptors, anchors: Tensor, observed_ids: Tensor, values: Tensor,
    noise: float,
) -> Tensor:  # fmt: skip
    """(K_mn K_nm + noise K_mm)^-1 K_mn Y, in float64 because the kernel is squared."""
    gram = noise * descriptors.covariance(anchors, anchors).double()
    product = torch.zeros(len(anchors), values.shape[1], dtype=torch.float64)
    for part, rows in zip(
        torch.split(observed_ids, _ROWS), torch.split(values, _ROWS), strict=True
    ):
        block = descriptors.covariance(part, anchors).double()
        gram.addmm_(block.T, block)
        product.addmm_(block.T, rows.double())
    # Covers the rounding error of the float32 covariances.
    gram.diagonal().add_(1e-7 * len(observed_ids))
    return torch.cholesky_solve(product, torch.linalg.cholesky(gram)).float()


def _inducing_rows(problem: CompletionProblem, entities: Tensor, limit: int) -> Tensor:
    """Positions in `entities` of at most `limit` observed ones, sampled by name, ascending."""
    order = torch.zeros_like(problem.observed, dtype=torch.int64)
    observed_ids = problem.observed_ids
    order[observed_ids] = problem.partition("inducing", max(1, len(observed_ids)))
    return order[entities].argsort(stable=True)[:limit].sort().values


def _best_noise(problem: CompletionProblem) -> float:
    """The noise with the lowest squared error on a held-out tenth of the observed vectors."""
    held_out = problem.observed_ids[problem.partition("kernel", _HELD_OUT) == 0]
    observed = problem.observed.clone()
    observed[held_out] = False
    rest = problem.with_observed(observed)
    descriptors = EntityDescriptors.from_problem(rest)
    fitted = rest.observed_ids[_inducing_rows(rest, rest.observed_ids, INDUCING)]
    covariance = descriptors.covariance(fitted, fitted)
    across = descriptors.covariance(held_out, fitted)
    values = (problem.vectors[held_out] - rest.mean).float()
    errors: dict[float, float] = {}

    def error(noise: float) -> float:
        if noise not in errors:
            weight = _exact_weights(covariance.clone(), rest.centred[fitted], noise)
            predicted = across @ weight
            errors[noise] = float((predicted - values).square().mean(dtype=torch.float64))
        return errors[noise]

    best = START
    # Steps up, then down, while the error decreases.
    for factor in (2.0, 0.5):
        while MIN_NOISE <= best * factor <= MAX_NOISE and error(best * factor) < error(best):
            best *= factor
    return best
