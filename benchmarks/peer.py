"""PyKEEN models with our weights, for comparison in benchmarks and tests."""

from __future__ import annotations

import time
import warnings
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from pykeen.evaluation import RankBasedEvaluator
from pykeen.models import ERModel
from pykeen.nn.modules import RotatEInteraction
from pykeen.triples import CoreTriplesFactory
from torch import Tensor

from mmkgc_cli.kg.graph import Graph


class SumOfModuli(RotatEInteraction):
    """RotatE as published: a sum of complex moduli.

    PyKEEN 1.11.1 computes one L2 norm over all coordinates for any `p`.
    """

    def forward(self, h: Tensor, r: Tensor, t: Tensor) -> Tensor:
        """-sum_k |h_k r_k - t_k|; rotates the smaller side, as PyKEEN does."""
        if h.numel() <= t.numel():
            return -(h * r - t).abs().sum(-1)
        return -(h - t * r.conj()).abs().sum(-1)


def build_model(graph: Graph, interaction: Any, entities: Tensor, relations: Tensor) -> Any:
    """Builds a PyKEEN model from entity and relation rows, real or complex."""
    factory = CoreTriplesFactory(
        torch.from_numpy(graph.train).long(),
        num_entities=len(graph.entities),
        num_relations=len(graph.relations),
    )

    def kwargs(rows: Tensor) -> dict[str, Any]:
        return {"shape": rows.shape[1], "dtype": rows.dtype}

    model: Any = ERModel(
        triples_factory=factory,
        interaction=interaction,
        entity_representations_kwargs=kwargs(entities),
        relation_representations_kwargs=kwargs(relations),
        random_seed=0,
    )
    with torch.no_grad():
        for representation, rows in (
            (model.entity_representations[0], entities),
            (model.relation_representations[0], relations),
        ):
            real = torch.view_as_real(rows).flatten(1) if rows.is_complex() else rows
            representation._embeddings.weight.copy_(real)
    return model.eval()


@dataclass(frozen=True)
class PeerRanks:
    """Ranks ``[n]`` by (side, tie policy), candidates by side, metrics, and ranking time in s."""

    ranks: dict[tuple[str, str], NDArray[np.float64]]
    candidates: dict[str, NDArray[np.int64]]
    metrics: dict[str, float]
    seconds: float


def evaluate(model: Any, graph: Graph, n_triples: int, batch_size: int = 32) -> PeerRanks:
    """Ranks the first `n_triples` test triples on both sides, filtered by all splits."""
    splits = {name: torch.from_numpy(rows).long() for name, rows in graph.splits.items()}
    evaluator = RankBasedEvaluator(filtered=True, clear_on_finalize=False)
    start = time.perf_counter()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        result = evaluator.evaluate(
            model,
            splits["test"][:n_triples],
            additional_filter_triples=list(splits.values()),
            batch_size=batch_size,
            use_tqdm=False,
        )
    seconds = time.perf_counter() - start
    return PeerRanks(
        {key: np.concatenate(parts).astype(np.float64) for key, parts in evaluator.ranks.items()},
        {key: np.concatenate(parts) for key, parts in evaluator.num_candidates.items()},
        {key: float(value) for key, value in result.to_flat_dict().items()},
        seconds,
    )
