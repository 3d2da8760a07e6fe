"""Filtered ranks of any scorer on both sides, without a full score matrix."""

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
from mmkgc_cli.scoring.contract import Scorer, Side
from mmkgc_cli.scoring.scores import LANES, BranchRows, device_of, ranking_rows, ranking_tables

# Maximum number of queries per call of the op, which bounds the memory of queries and filters.
QUERIES_PER_CALL = 8192
# Maximum number of scores in memory where the op does not compute them itself.
SCORES_AT_ONCE = 1 << 24


class NonFiniteScores(MmkgcError):
    """A scorer returned NaN or infinity, which cannot be ranked."""


@torch.no_grad()
def rank(scorer: Scorer, triples: NDArray[np.int32], known: KnownTriples) -> dict[Side, SideRanks]:
    """Ranks the tail and the head of every triple among all entities.

    Args:
        scorer: a scorer on any device; its mode (train or eval) does not change.
        triples: ``[n, 3]``, columns head, relation, tail.
        known: true triples, which are filtered out of each ranking, except the answer itself.

    Raises:
        NonFiniteScores: when a score is NaN or infinite.
    """
    return {side: _rank_side(scorer, triples.astype(np.int64), known, side) for side in Side}


def _rank_side(
    scorer: Scorer, triples: NDArray[np.int64], known: KnownTriples, side: Side
) -> SideRanks:
    keys, targets = known.keys(triples, side)
    # Relation-major order: equal queries are ranked once, and equal relations are adjacent.
    order = np.argsort(keys, kind="stable")
    unique, first = np.unique(keys[order], return_index=True)
    ends = np.append(first, len(keys))
    better = np.empty(len(keys), dtype=np.int64)
    equal = np.empty(len(keys), dtype=np.int64)
    candidates = np.empty(len(keys), dtype=np.int64)
    for start, stop, tables in _calls(scorer, unique, known, side):
        call_keys = unique[start:stop]
        rows = order[ends[start] : ends[stop]]
        relations, entities = np.divmod(call_keys, known.n_entities)
        answers = known.answers(call_keys, side)
        ptr = ends[start : stop + 1] - ends[start]
        wanted = targets[rows]
        device = device_of(scorer)
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
        n_better, n_equal, nonfinite = (count.cpu().numpy() for count in counts)
        if nonfinite.any():
            query = int(np.flatnonzero(nonfinite)[0])
            raise NonFiniteScores(
                f"{int(nonfinite[query])} of {known.n_entities} scores are NaN or infinite for "
                f"relation {int(relations[query])}, {'head' if side is Side.tail else 'tail'} "
                f"{int(entities[query])}, because the model diverged or a feature is not finite",
                fix="lower the learning rate, or check the stores with mmkgc features check",
            )
        better[rows], equal[rows] = n_better, n_equal
        candidates[rows] = _count_candidates(known, call_keys, answers.ptr, side, ptr, wanted)
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
    prepared = ranking_rows(scorer, entities, relations, side, tables)
    if isinstance(prepared, BranchRows):
        return rank_candidates(
            prepared.queries,
            prepared.table,
            *rows,
            metric=prepared.metric,
            pairs=prepared.pairs,
            scale=prepared.scale,
        )
    block = max(1, min(LANES, SCORES_AT_ONCE // scorer.n_entities))
    return rank_scores(prepared, block, *rows)


def _calls(
    scorer: Scorer, keys: Ids, known: KnownTriples, side: Side
) -> Iterator[tuple[int, int, list[Tensor]]]:
    """Slices of the unique queries, and the candidate rows to rank each slice against."""
    bounds = np.array([0, len(keys)])
    relations: Ids | list[None] = [None]
    if scorer.per_relation:
        relations, first = np.unique(keys // known.n_entities, return_index=True)
        bounds = np.append(first, len(keys))
    for i, relation in enumerate(relations):
        if bounds[i] == bounds[i + 1]:
            return
        tables = ranking_tables(scorer, None if relation is None else int(relation), side)
        for start in range(bounds[i], bounds[i + 1], QUERIES_PER_CALL):
            yield start, min(start + QUERIES_PER_CALL, int(bounds[i + 1])), tables


def _count_candidates(
    known: KnownTriples, keys: Ids, filter_ptr: Ids, side: Side, target_ptr: Ids, targets: Ids
) -> Ids:
    """Number of ranked entities per answer: those not filtered, and the answer itself."""
    query = np.repeat(np.arange(len(keys)), np.diff(target_ptr))
    filtered = np.diff(filter_ptr)[query]
    return known.n_entities - filtered + known.contains(keys[query], targets, side)


def _to(values: Ids, device: torch.device) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(values, dtype=np.int64)).to(device)
