"""What a trained scorer weighs its parts by, and how sure it is of negatives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.ops import SideChoice
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.restore import load_run
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.sampling.contract import SamplingTask
from mmkgc_cli.scoring import Scorer
from mmkgc_cli.scoring.contract import MixtureWeights
from mmkgc_cli.state.rng import stream_seed
from mmkgc_cli.state.trace import read_trace
from mmkgc_cli.training.negative_entropy import NegativeEntropy, NegativeEntropyProbe

QUANTILES = (0.05, 0.5, 0.95)


@dataclasses.dataclass(frozen=True)
class PartWeights:
    """Weights of one part, over those that have it; None where nobody has."""

    part: str
    count: int
    mean: float | None = None
    deviation: float | None = None
    low: float | None = None  # 5 %
    median: float | None = None
    high: float | None = None  # 95 %


@dataclasses.dataclass(frozen=True)
class Weighing:
    """Parts that share a weight of 1 among them.

    `evenness` is the mean entropy of the weights as a share of the most it could be: 1 where all
    weigh alike, 0 where one has it all. Rows with a single part do not count.
    """

    name: str
    parts: list[PartWeights]
    evenness: float | None


@dataclasses.dataclass(frozen=True)
class Learnt:
    """What `mmkgc inspect` shows; `history` is of epochs that were validated."""

    scorer: str
    epoch: int
    weighings: list[Weighing]
    certainty: NegativeEntropy
    history: list[dict[str, Any]]


def certainty_probe(config: RunConfig, graph: Graph, scorer: Scorer, device: torch.device) -> (
    NegativeEntropyProbe
):  # fmt: skip
    """Negatives of the kind that the settings of a run name, apart from those it is trained on."""
    settings = config.training
    task = SamplingTask(
        torch.from_numpy(graph.train).to(device=device, dtype=torch.int64),
        len(graph.entities),
        len(graph.relations),
        settings.negatives,
        settings.negative_sampling,
        SideChoice[settings.negative_side.replace("-", "_")],
        stream_seed(settings.seed, "certainty"),
    )
    easy, hard = settings.entropy_thresholds
    return NegativeEntropyProbe(task, (easy, hard), scorer, one_sided=settings.entropy_one_sided)


def learnt(run: RunDirectory, graph_folder: Path | None) -> Learnt:
    """Looks at the weights of a run.

    Raises:
        DataError: as `load_run`.
    """
    loaded = load_run(run, graph_folder, "cpu")
    probe = certainty_probe(loaded.config, loaded.graph, loaded.scorer, torch.device("cpu"))
    events = read_trace(run.trace) if run.trace.is_file() else []
    return Learnt(
        loaded.config.scorer,
        loaded.epoch,
        [weighing(weights) for weights in loaded.scorer.mixture_weights()],
        probe(loaded.scorer),
        [{k: v for k, v in e.items() if k not in ("event", "seconds")}
         for e in events if e.get("event") == "certainty"],
    )  # fmt: skip


def weighing(weights: MixtureWeights) -> Weighing:
    """Numbers of `weights`, in which NaN stands for parts that a row does not have."""
    values = weights.values.double()
    parts = [_part(name, column) for name, column in zip(weights.parts, values.T, strict=True)]
    has = ~values.isnan()
    several = has.sum(1) > 1
    evenness = None
    if several.any():
        kept = torch.where(has, values, 0)[several]
        entropy = -torch.special.xlogy(kept, kept).sum(1)
        evenness = float((entropy / has[several].sum(1).double().log()).mean())
    return Weighing(weights.name, parts, evenness)


def _part(name: str, column: Tensor) -> PartWeights:
    values = column[~column.isnan()]
    if not len(values):
        return PartWeights(name, 0)
    low, median, high = values.quantile(values.new_tensor(QUANTILES)).tolist()
    deviation = float(values.std(unbiased=False))
    return PartWeights(name, len(values), float(values.mean()), deviation, low, median, high)
