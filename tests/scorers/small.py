"""Scorers with given weights, for closed forms."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.scoring import Scorer, load_scorer


def scorer_with(name: str, weights: dict[str, Any], **config: Any) -> Scorer:
    """The scorer `name` in float64 with these weights; rows of ``entities`` and another table."""
    scorer_class = load_scorer(name)
    tables = {key: torch.tensor(rows, dtype=torch.float64) for key, rows in weights.items()}
    n_entities = len(tables["entities"])
    n_relations = next(len(rows) for key, rows in tables.items() if key != "entities")
    scorer = scorer_class(
        scorer_class.Config(**config), n_entities, n_relations, torch.Generator()
    ).double()
    with torch.no_grad():
        for key, rows in tables.items():
            scorer.get_parameter(key).copy_(rows)
    return scorer


def score_of(scorer: Scorer, *triple: int) -> float:
    """Of one triple (h, r, t)."""
    triples: Tensor = torch.tensor([triple])
    return scorer.score(triples).item()
