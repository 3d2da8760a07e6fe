"""The one ranker: filtered ranks of any scorer, both sides, without a score matrix."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.evaluation.known import Ids, KnownTriples
from mmkgc_cli.evaluation.ranks import SideRanks
from mmkgc_cli.ops import rank_candidates, rank_scores
from mmkgc_cli.scoring import scores as paths
from mmkgc_cli.scoring.contract import Scorer, Side

# Queries ranked in one call of the op: bounds memory for query rows and filters.
QUERIES_PER_CALL = 8192
# Scores held at once where they are not made within the op.
SCORES_AT_ONCE = 1 << 24


class NonFiniteScores(MmkgcError):
    """A scorer gave NaN or infinity; ranks would mean nothing."""


@torch.no_grad()
def rank(scorer: Scorer, triples: NDArray[np.int32], known: KnownTriples) -> dict[Side, SideRanks]:
    """Ranks the tail and the head of every triple among all entities.

    Args:
        scorer: on any device; its mode (train or eval) is left as it is.
        triples: ``[n, 3]`` head, relation, tail.
        known: true triples; all of them but the target are left out of its ranking.

    Raises:
        NonFiniteScores: when any score is NaN or infinite.
    """
    return {side: _rank_side(scorer, triples.astype(np.int64), known, side) for side in Side}


def _rank_side(
    scorer: Scorer, triples: NDArray[np.int64], known: KnownTriples, side: Side
) -> SideRanks:
    keys, targets = known.keys(triples, side)
    # Relation-major order: equal queries are ranked once, equal relations stand together.
    order = np.argsort(keys, kind="stable")
    unique, first = np.unique(keys[order], return_index=True)
    ends = np.append(first, len(keys))
    better = np.empty(len(keys), dtype=np.int64)
    equal = np.empty(len(keys), dtype=np.int64)
    candidates = np.empty(len(keys), dtype=np.int64)
    for start, stop, tables in _calls(scorer, unique, known, side):
        part = unique[start:stop]
        rows = order[ends[start] : ends[stop]]
        relations, entities = np.divmod(part, known.n_entities)
        answers = known.answers(part, side)
        ptr = ends[start : stop + 1] - ends[start]
        wanted = targets[rows]
        device = paths.device_of(scorer)
        counts = _count(
            scorer,
            _to(entities, device),
            _to(relations, device),
            side,
            tables,
            (
                _to(ptr, device),
                _to(wanted, device),
                _to(answers.ptr, device),
                _to(answers.ids, device),
            ),
        )
        above, same, nonfinite = (count.cpu().numpy() for count in counts)
        if nonfinite.any():
            at = int(np.flatnonzero(nonfinite)[0])
            raise NonFiniteScores(
                f"{int(nonfinite[at])} of {known.n_entities} scores are NaN or infinite for "
                f"relation {int(relations[at])}, {'head' if side is Side.tail else 'tail'} "
                f"{int(entities[at])}; the model has diverged or a feature is not finite"
            )
        better[rows], equal[rows] = above, same
        candidates[rows] = _count_candidates(known, part, answers.ptr, side, ptr, wanted)
    return SideRanks(1 + better, 1 + better + equal, candidates)


def _count(
    scorer: Scorer,
    entities: Tensor,
    relations: Tensor,
    side: Side,
    tables: list[Tensor],
    rows: tuple[Tensor, Tensor, Tensor, Tensor],
) -> tuple[Tensor, Tensor, Tensor]:
    """Better, equal and not finite; `rows` are those of targets and of filters."""
    block = max(1, min(paths.LANES, SCORES_AT_ONCE // scorer.n_entities))
    if scorer.scores_triples_only():
        return rank_scores(
            lambda a, b: paths.triple_block(scorer, entities[a:b], relations[a:b], side),
            block,
            *rows,
        )
    queries = [q.contiguous() for q in paths.query_rows(scorer, entities, relations, side)]
    found = paths.scale_rows(scorer, entities, relations, side)
    scales = [None if s is None else s.contiguous() for s in found]
    if not paths.has_branches(scorer):
        (metric,) = paths.metrics(scorer)
        pairs = paths.terms(scorer, 0, queries[0].shape[1], tables[0].shape[1])
        return rank_candidates(
            queries[0], tables[0], *rows, metric=metric, pairs=pairs, scale=scales[0]
        )

    def scores_of(a: int, b: int) -> Tensor:
        some = [None if s is None else s[a:b] for s in scales]
        return paths.block_scores(scorer, [q[a:b] for q in queries], some, tables)

    return rank_scores(scores_of, block, *rows)


def _calls(
    scorer: Scorer, keys: Ids, known: KnownTriples, side: Side
) -> Iterator[tuple[int, int, list[Tensor]]]:
    """Slices of the unique queries with the candidate tables that each is ranked against."""
    bounds = np.array([0, len(keys)])
    relations: Ids | list[None] = [None]
    if scorer.per_relation:
        relations, first = np.unique(keys // known.n_entities, return_index=True)
        bounds = np.append(first, len(keys))
    for i, relation in enumerate(relations):
        if bounds[i] == bounds[i + 1]:
            return
        tables = []
        if not scorer.scores_triples_only():
            which = None if relation is None else int(relation)
            tables = [t.contiguous() for t in paths.candidate_rows(scorer, None, which, side)]
        for start in range(bounds[i], bounds[i + 1], QUERIES_PER_CALL):
            yield start, min(start + QUERIES_PER_CALL, int(bounds[i + 1])), tables


def _count_candidates(
    known: KnownTriples, keys: Ids, filter_ptr: Ids, side: Side, target_ptr: Ids, targets: Ids
) -> Ids:
    """Entities that take part in the ranking of each target: not filtered, or the target."""
    query = np.repeat(np.arange(len(keys)), np.diff(target_ptr))
    filtered = np.diff(filter_ptr)[query]
    return known.n_entities - filtered + known.contains(keys[query], targets, side)


def _to(values: Ids, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)
