"""Ridge regression of vectors on the train triples, in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmkgc_cli.completion.problem import CompletionProblem, SparseMatrix

# Number of directed relations that are counted, the most frequent first: the Gram matrix grows with
# the square of it.
MAX_COUNTS = 2048
# Penalties are in units of the mean diagonal of a group, from almost no shrinkage to almost full.
START, MIN_PENALTY, MAX_PENALTY = 0.1, 1e-5, 1e3
_HELD_OUT = 10
_ROWS = 2048
_COLUMNS = 64


def ridge_regression(
    problem: CompletionProblem, entities: Tensor
) -> tuple[Tensor, Tensor, list[float]]:
    """Predicts vectors of `entities`, int64 ``[k]``.

    Regressors are log(1 + count) per relation and direction, the mean of the observed neighbours,
    and the mean of the observed entities in the same contexts (a relation, a direction and a
    neighbour). The regressors of an entity never include its own vector. Each of the three groups
    has a penalty. Coordinate search, two rounds, minimizes the squared error on a held-out tenth of
    the observed vectors.

    Returns:
        Vectors float32 ``[k, d]``; a mask bool ``[k]``, False where an entity has no train triple
        or no vector is observed; and the penalties.
    """
    observed_ids = problem.observed_ids
    degree = torch.from_numpy(np.bincount(problem.target, minlength=len(problem.names)))
    if not len(observed_ids):
        return torch.zeros(len(entities), problem.vectors.shape[1]), degree[entities] < 0, []
    groups = regressors(problem)
    penalties = [START] * len(groups)
    if len(observed_ids) >= 2 * _HELD_OUT:
        is_held_out = problem.partition("ridge", _HELD_OUT) == 0
        penalties = _best_penalties(
            problem, groups, observed_ids[~is_held_out], observed_ids[is_held_out]
        )
    moments = Moments.from_rows(groups, problem.centred, observed_ids)
    values = moments.predict(groups, entities, moments.solve(penalties))
    return (values + problem.mean).float(), degree[entities] > 0, penalties


def regressors(problem: CompletionProblem) -> list[Tensor]:
    """The three groups, float32 ``[E, *]``: counts, neighbours, contexts."""
    return [_counts(problem), _neighbour_means(problem), _context_means(problem)]


def _counts(problem: CompletionProblem) -> Tensor:
    frequency = np.bincount(problem.relation, minlength=problem.relations)
    relations = np.sort(np.argsort(-frequency, kind="stable")[:MAX_COUNTS])
    column = np.full(problem.relations, -1)
    column[relations] = np.arange(len(relations))
    is_counted = column[problem.relation] >= 0
    flat = problem.target[is_counted] * len(relations) + column[problem.relation[is_counted]]
    counts = np.bincount(flat, minlength=len(problem.names) * len(relations))
    logarithms = torch.from_numpy(np.log1p(counts.astype(np.float32)))
    return logarithms.reshape(len(problem.names), len(relations))


def _neighbour_means(problem: CompletionProblem) -> Tensor:
    is_observed = problem.observed.numpy()[problem.source]
    target, n = problem.target[is_observed], len(problem.names)
    weight = 1 / np.bincount(target, minlength=n)[target]
    matrix = SparseMatrix.from_entries(target, problem.source[is_observed], weight, n)
    return matrix @ problem.centred


def _context_means(problem: CompletionProblem) -> Tensor:
    """For each entity, the mean over its contexts of the mean of the other observed members."""
    context, n_contexts = problem.contexts
    n, width = problem.centred.shape
    is_observed = problem.observed.numpy()[problem.target]
    members = np.bincount(context[is_observed], minlength=n_contexts)
    others = members[context] - is_observed  # observed members besides the target itself
    has_others = others > 0
    target, inside, others = problem.target[has_others], context[has_others], others[has_others]
    share = 1 / (others * np.bincount(target, minlength=n)[target])
    # Contexts without an observed member are left out of the sums.
    used, inside = np.unique(inside, return_inverse=True)
    row = np.full(n_contexts, -1)
    row[used] = np.arange(len(used))
    inner = is_observed & (row[context] >= 0)
    sums = SparseMatrix.from_entries(
        row[context[inner]], problem.target[inner], np.ones(int(inner.sum())), len(used)
    )
    spread = SparseMatrix.from_entries(target, inside.astype(np.int64), share, n)
    own_share = torch.from_numpy(np.bincount(target, weights=share, minlength=n)).float()[:, None]
    out = torch.empty(n, width)
    for low in range(0, width, _COLUMNS):
        block = problem.centred[:, low : low + _COLUMNS].contiguous()
        # `centred` is zero where nothing is observed, so this subtracts observed vectors only.
        out[:, low : low + _COLUMNS] = spread @ (sums @ block) - own_share * block
    return out


class Moments:
    """Sufficient statistics of a ridge regression, in float64: means, Gram matrix, products."""

    def __init__(
        self, mean: Tensor, target: Tensor, gram: Tensor, product: Tensor, sizes: Sequence[int]
    ) -> None:
        self.mean, self.target, self.gram, self.product = mean, target, gram, product
        self.sizes = sizes

    @classmethod
    def from_rows(cls, groups: Sequence[Tensor], values: Tensor, rows: Tensor) -> Moments:
        """Accumulates regressors and `values` over `rows`, centred on their means, in blocks."""
        sizes = [group.shape[1] for group in groups]
        width = sum(sizes)
        mean = torch.cat([group[rows].mean(dim=0, dtype=torch.float64) for group in groups])
        target = values[rows].mean(dim=0, dtype=torch.float64)
        gram = torch.zeros(width, width, dtype=torch.float64)
        product = torch.zeros(width, values.shape[1], dtype=torch.float64)
        for part in torch.split(rows, _ROWS):
            block = _block(groups, part) - mean
            gram.addmm_(block.T, block)
            product.addmm_(block.T, values[part].double() - target)
        return cls(mean, target, gram, product, sizes)

    def solve(self, penalties: Sequence[float]) -> Tensor:
        """Coefficients B ``[p, d]`` of (G + diag(penalty)) B = P; the intercept has no penalty.

        The unit of a penalty is the mean of its group's diagonal in G.
        """
        diagonals = []
        for group, penalty in zip(
            torch.split(self.gram.diagonal(), list(self.sizes)), penalties, strict=True
        ):
            scale = group.mean() if len(group) else group.sum()
            # A group of zeros gets penalty 1, which keeps the matrix positive definite.
            diagonals.append(torch.full_like(group, penalty * float(scale) or 1.0))
        factor = torch.linalg.cholesky(self.gram + torch.diag(torch.cat(diagonals)))
        return torch.cholesky_solve(self.product, factor)

    def predict(self, groups: Sequence[Tensor], rows: Tensor, coefficients: Tensor) -> Tensor:
        """Predicts the values of `rows` from their regressors, float64 ``[k, d]``."""
        blocks = [
            (_block(groups, part) - self.mean) @ coefficients for part in torch.split(rows, _ROWS)
        ]
        return torch.cat(blocks) + self.target


def _block(groups: Sequence[Tensor], rows: Tensor) -> Tensor:
    return torch.cat([group[rows] for group in groups], dim=1).double()


def _best_penalties(
    problem: CompletionProblem, groups: Sequence[Tensor], fitted: Tensor, held_out: Tensor
) -> list[float]:
    """Penalties of the fit on `fitted` with the lowest squared error on `held_out`, by group."""
    moments = Moments.from_rows(groups, problem.centred, fitted)
    values = problem.centred[held_out].double()
    errors: dict[tuple[float, ...], float] = {}

    def error(penalties: tuple[float, ...]) -> float:
        if penalties not in errors:
            predicted = moments.predict(groups, held_out, moments.solve(penalties))
            errors[penalties] = float((predicted - values).square().mean())
        return errors[penalties]

    best = (START,) * len(groups)
    for _ in range(2):
        for i in range(len(groups)):
            # Steps up, then down, while the error decreases.
            for factor in (10.0, 0.1):
                while MIN_PENALTY <= best[i] * factor <= MAX_PENALTY:
                    candidate = (*best[:i], best[i] * factor, *best[i + 1 :])
                    if error(candidate) >= error(best):
                        break
                    best = candidate
    return list(best)
