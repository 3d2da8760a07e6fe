"""Mixture weights of a trained scorer, and the entropy of its negatives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.restore import load_run
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.scoring import Scorer
from mmkgc_cli.scoring.contract import MixtureWeights
from mmkgc_cli.state.rng import stream_seed
from mmkgc_cli.state.trace import read_trace
from mmkgc_cli.training.link_prediction import sampling_task
from mmkgc_cli.training.negative_entropy import NegativeEntropy, NegativeEntropyProbe
from mmkgc_cli.training.settings import EntropyWeightedLoss, NegativesSettings

QUANTILES = (0.05, 0.5, 0.95)


@dataclasses.dataclass(frozen=True)
class PartWeights:
    """Statistics of the weights of one part, over the entities that have it; None without any."""

    part: str
    count: int
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None  # 5 %
    median: float | None = None
    high: float | None = None  # 95 %


@dataclasses.dataclass(frozen=True)
class WeightSummary:
    """Weights of parts, which sum to 1 for each entity.

    `evenness` is the mean of the entropy of the weights divided by its maximum: 1 for equal
    weights, 0 if one part has all the weight. Entities with a single part do not count.
    """

    name: str
    parts: list[PartWeights]
    evenness: float | None


@dataclasses.dataclass(frozen=True)
class Inspection:
    """What `mmkgc inspect` shows; `history` has the validated epochs."""

    scorer: str
    epoch: int
    weighings: list[WeightSummary]
    certainty: NegativeEntropy
    history: list[dict[str, Any]]


def entropy_probe(config: RunConfig, graph: Graph, scorer: Scorer, device: torch.device) -> (
    NegativeEntropyProbe
):  # fmt: skip
    """A probe that samples negatives as the run does, from a random stream of its own."""
    task = sampling_task(
        torch.from_numpy(graph.train).to(device=device, dtype=torch.int64),
        scorer,
        config.negatives or NegativesSettings(),
        stream_seed(config.training.seed, "certainty"),
    )
    loss = config.loss
    if not isinstance(loss, EntropyWeightedLoss):
        loss = EntropyWeightedLoss(name="entropy-weighted")
    thresholds = (loss.thresholds[0], loss.thresholds[1])
    return NegativeEntropyProbe(task, thresholds, scorer, one_sided=loss.one_sided)


def inspect_run(run: RunDirectory, graph_folder: Path | None) -> Inspection:
    """Loads a run and summarizes its mixture weights and negatives.

    Raises:
        DataError: as `load_run`.
    """
    loaded = load_run(run, graph_folder, "cpu")
    probe = entropy_probe(loaded.config, loaded.graph, loaded.scorer, torch.device("cpu"))
    events = read_trace(run.trace) if run.trace.is_file() else []
    return Inspection(
        loaded.config.scorer,
        loaded.epoch,
        [summarize(weights) for weights in loaded.scorer.mixture_weights()],
        probe(loaded.scorer),
        [{k: v for k, v in e.items() if k not in ("event", "seconds")}
         for e in events if e.get("event") == "certainty"],
    )  # fmt: skip


def summarize(weights: MixtureWeights) -> WeightSummary:
    """Statistics of mixture weights, in which NaN marks parts that an entity does not have."""
    values = weights.values.double()
    parts = [_part(name, column) for name, column in zip(weights.parts, values.T, strict=True)]
    present = ~values.isnan()
    several = present.sum(1) > 1
    evenness = None
    if several.any():
        filled = torch.where(present, values, 0)[several]
        entropy = -torch.special.xlogy(filled, filled).sum(1)
        evenness = float((entropy / present[several].sum(1).double().log()).mean())
    return WeightSummary(weights.name, parts, evenness)


def _part(name: str, column: Tensor) -> PartWeights:
    values = column[~column.isnan()]
    if not len(values):
        return PartWeights(name, 0)
    low, median, high = values.quantile(values.new_tensor(QUANTILES)).tolist()
    deviation = float(values.std(unbiased=False))
    return PartWeights(name, len(values), float(values.mean()), deviation, low, median, high)
