"""Scorers with given weights and features, for closed forms."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.scoring import Features, Scorer, load_scorer

Numbers = Sequence[Any]


def featured(
    name: str,
    weights: Mapping[str, Numbers],
    vectors: Mapping[str, Numbers],
    relations: int = 1,
    **config: Any,
) -> Scorer:
    """The scorer `name` in float64, in eval mode, with these weights and vectors by modality."""
    scorer_class = load_scorer(name)
    features = {}
    for modality, rows in vectors.items():
        table = torch.tensor(rows, dtype=torch.float64)
        features[modality] = Features(table, table.any(1))
    count = len(next(iter(vectors.values())))
    rng = torch.Generator().manual_seed(0)
    scorer = scorer_class(scorer_class.Config(**config), count, relations, rng, features=features)
    scorer.double().eval()
    with torch.no_grad():
        for key, rows in weights.items():
            scorer.get_parameter(key).copy_(torch.tensor(rows, dtype=torch.float64))
    return scorer


def unit(row: Sequence[float]) -> Tensor:
    results = torch.tensor(row, dtype=torch.float64)
    length: Tensor = results.norm()
    return results / length


def distance(h: Tensor, r: Tensor, t: Tensor) -> float:
    return float((h + r - t).abs().sum())
