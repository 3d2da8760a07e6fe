"""Metrics of ranks: MR, MRR, hits@k and the adjusted mean rank index (AMRI)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.evaluation.ranks import SideRanks
from mmkgc_cli.sides import Side

TIES = ("realistic", "optimistic", "pessimistic")
HITS = (1, 3, 10)


def rank_metrics(
    ranks: NDArray[np.float64] | NDArray[np.int64], candidates: NDArray[np.int64]
) -> dict[str, float]:
    """Computes metrics of `ranks` ``[n]`` among `candidates` ``[n]``; fractions, not percent.

    ``amri`` is 1 - (MR - 1) / (E[MR] - 1), where E[MR] is the mean rank of random scores: 1 is
    perfect, 0 is random (Ali et al., 2020, "On the ambiguity of rank-based evaluation"). It is 0
    if every ranking has one candidate.
    """
    mr = float(ranks.mean())
    chance = float(((candidates + 1) / 2).mean())
    return {
        "mrr": float((1.0 / ranks).mean()),
        "mr": mr,
        **{f"hits@{k}": float((ranks <= k).mean()) for k in HITS},
        "amri": 1.0 - (mr - 1.0) / (chance - 1.0) if chance > 1.0 else 0.0,
    }


def side_metrics(
    ranks: Mapping[Side, SideRanks], mask: NDArray[np.bool_] | None = None
) -> dict[str, Any]:
    """Computes metrics, nested ``side.tie.metric``, over the triples in `mask` (None: all).

    Sides are ``both`` (all head and tail ranks), ``head`` and ``tail``. Each also has ``count``,
    the number of ranks.
    """
    parts: dict[str, list[Side]] = {
        "both": [Side.head, Side.tail],
        "head": [Side.head],
        "tail": [Side.tail],
    }
    rows: Any = slice(None) if mask is None else mask
    report: dict[str, Any] = {}
    for label, sides in parts.items():
        candidates = np.concatenate([ranks[side].candidates[rows] for side in sides])
        entry: dict[str, Any] = {"count": len(candidates)}
        if len(candidates):
            for tie in TIES:
                values = np.concatenate([getattr(ranks[side], tie)[rows] for side in sides])
                entry[tie] = rank_metrics(values, candidates)
        report[label] = entry
    return report


def grouped_metrics(
    ranks: Mapping[Side, SideRanks], groups: NDArray[np.int64], names: Mapping[int, str]
) -> dict[str, Any]:
    """Computes `side_metrics` per group; `groups` ``[n]`` is the group of each triple."""
    return {names[int(group)]: side_metrics(ranks, groups == group) for group in np.unique(groups)}
