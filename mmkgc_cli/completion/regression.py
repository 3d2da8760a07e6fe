"""Ridge regression of a vector on what the train triples say of its entity, in closed form."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from torch import Tensor

from mmkgc_cli.completion.problem import Problem, Sparse

# Of the counts per relation and direction, the most frequent: the Gram matrix is square in them.
MOST_COUNTS = 2048
# In units of the mean of the diagonal of a group: from hardly any to nearly nothing left.
START, LEAST, MOST = 0.1, 1e-5, 1e3
_HELD_OUT = 10
_ROWS = 2048
_COLUMNS = 64


def ridge(problem: Problem, wanted: Tensor) -> tuple[Tensor, Tensor, list[float]]:
    """Vectors of the entities `wanted`, int64 ``[k]``.

    Regressors are log(1 + count) per relation and direction, the mean of the observed neighbours,
    and the mean of the observed entities in the same contexts (a relation, a direction and a
    neighbour). No entity's own vector is among its regressors. Each of the three groups has a
    penalty, chosen one after the other, twice, by the squared error on a tenth of the observed.

    Returns:
        float32 ``[k, d]``, bool ``[k]`` (False where an entity has no train triple, or nothing is
        observed), and the penalties.
    """
    known = problem.known
    degree = torch.from_numpy(np.bincount(problem.target, minlength=len(problem.names)))
    if not len(known):
        return torch.zeros(len(wanted), problem.vectors.shape[1]), degree[wanted] < 0, []
    groups = regressors(problem)
    penalties = [START] * len(groups)
    if len(known) >= 2 * _HELD_OUT:
        held = problem.parts("ridge", _HELD_OUT) == 0
        penalties = _chosen(problem, groups, known[~held], known[held])
    moments = Moments.of(groups, problem.centred, known)
    values = moments.predict(groups, wanted, moments.solve(penalties))
    return (values + problem.mean).float(), degree[wanted] > 0, penalties


def regressors(problem: Problem) -> list[Tensor]:
    """The three groups, float32 ``[E, *]``: counts, neighbours, contexts."""
    return [_counts(problem), _neighbour_means(problem), _context_means(problem)]


def _counts(problem: Problem) -> Tensor:
    total = np.bincount(problem.relation, minlength=problem.relations)
    chosen = np.sort(np.argsort(-total, kind="stable")[:MOST_COUNTS])
    place = np.full(problem.relations, -1)
    place[chosen] = np.arange(len(chosen))
    kept = place[problem.relation] >= 0
    flat = problem.target[kept] * len(chosen) + place[problem.relation[kept]]
    counts = np.bincount(flat, minlength=len(problem.names) * len(chosen))
    table = torch.from_numpy(np.log1p(counts.astype(np.float32)))
    return table.reshape(len(problem.names), len(chosen))


def _neighbour_means(problem: Problem) -> Tensor:
    kept = problem.observed.numpy()[problem.source]
    target, n = problem.target[kept], len(problem.names)
    weight = 1 / np.bincount(target, minlength=n)[target]
    return Sparse.of(target, problem.source[kept], weight, n) @ problem.centred


def _context_means(problem: Problem) -> Tensor:
    """Mean over the contexts of an entity of the means of the others that are observed there."""
    context, n_contexts = problem.contexts
    n, width = problem.centred.shape
    seen = problem.observed.numpy()[problem.target]
    members = np.bincount(context[seen], minlength=n_contexts)
    others = members[context] - seen  # observed ones besides the target itself
    kept = others > 0
    target, inside, others = problem.target[kept], context[kept], others[kept]
    share = 1 / (others * np.bincount(target, minlength=n)[target])
    # Only contexts that say something are summed up.
    used, inside = np.unique(inside, return_inverse=True)
    place = np.full(n_contexts, -1)
    place[used] = np.arange(len(used))
    inner = seen & (place[context] >= 0)
    sums = Sparse.of(
        place[context[inner]], problem.target[inner], np.ones(int(inner.sum())), len(used)
    )
    spread = Sparse.of(target, inside.astype(np.int64), share, n)
    own = torch.from_numpy(np.bincount(target, weights=share, minlength=n)).float()[:, None]
    out = torch.empty(n, width)
    for low in range(0, width, _COLUMNS):
        part = problem.centred[:, low : low + _COLUMNS].contiguous()
        # `centred` is zero where nothing is observed, so only observed entities are taken out.
        out[:, low : low + _COLUMNS] = spread @ (sums @ part) - own * part
    return out


class Moments:
    """What a ridge regression needs of some rows: means, Gram matrix, products; all float64."""

    def __init__(
        self, mean: Tensor, target: Tensor, gram: Tensor, product: Tensor, sizes: Sequence[int]
    ) -> None:
        self.mean, self.target, self.gram, self.product = mean, target, gram, product
        self.sizes = sizes

    @classmethod
    def of(cls, groups: Sequence[Tensor], values: Tensor, rows: Tensor) -> Moments:
        """Of the regressors and `values` in `rows`, centred there, a block at a time."""
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
        """Coefficients ``[p, d]``: (G + diag(penalty)) B = P, an intercept being left free.

        A penalty counts in units of the mean of its group's diagonal in G.
        """
        added = []
        for group, penalty in zip(
            torch.split(self.gram.diagonal(), list(self.sizes)), penalties, strict=True
        ):
            scale = group.mean() if len(group) else group.sum()
            # A group that is nothing but zeros takes no part, whatever its penalty.
            added.append(torch.full_like(group, penalty * float(scale) or 1.0))
        factor = torch.linalg.cholesky(self.gram + torch.diag(torch.cat(added)))
        return torch.cholesky_solve(self.product, factor)

    def predict(self, groups: Sequence[Tensor], rows: Tensor, coefficients: Tensor) -> Tensor:
        """What the coefficients make of the regressors of some rows, float64 ``[k, d]``."""
        parts = [
            (_block(groups, part) - self.mean) @ coefficients for part in torch.split(rows, _ROWS)
        ]
        return torch.cat(parts) + self.target


def _block(groups: Sequence[Tensor], rows: Tensor) -> Tensor:
    return torch.cat([group[rows] for group in groups], dim=1).double()


def _chosen(
    problem: Problem, groups: Sequence[Tensor], fitted: Tensor, held: Tensor
) -> list[float]:
    """The penalties whose fit on `fitted` is nearest to the vectors of `held`, group by group."""
    moments = Moments.of(groups, problem.centred, fitted)
    values = problem.centred[held].double()
    errors: dict[tuple[float, ...], float] = {}

    def error(penalties: tuple[float, ...]) -> float:
        if penalties not in errors:
            found = moments.predict(groups, held, moments.solve(penalties))
            errors[penalties] = float((found - values).square().mean())
        return errors[penalties]

    best = (START,) * len(groups)
    for _ in range(2):
        for i in range(len(groups)):
            # Up or down, a step at a time, for as long as it helps.
            for factor in (10.0, 0.1):
                while LEAST <= best[i] * factor <= MOST:
                    tried = (*best[:i], best[i] * factor, *best[i + 1 :])
                    if error(tried) >= error(best):
                        break
                    best = tried
    return list(best)
