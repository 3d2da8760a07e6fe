"""Assembles the parts of a training from a configuration, and tests them."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.evaluation.known import KnownTriples
from mmkgc_cli.evaluation.ranker import rank
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.runs.resources import check_room
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.runs.shapes import shapes_of
from mmkgc_cli.sampling.registry import load_sampler
from mmkgc_cli.scoring import Features, Scorer, load_scorer
from mmkgc_cli.scoring.contract import NO_FEATURES
from mmkgc_cli.state.device import pick_device
from mmkgc_cli.state.memory import keep_freed_memory
from mmkgc_cli.state.rng import generator, stream_seed
from mmkgc_cli.training import cuda_graph
from mmkgc_cli.training.link_prediction import LinkPrediction
from mmkgc_cli.training.loop import StepProgram
from mmkgc_cli.training.one_vs_all import AllCandidates
from mmkgc_cli.training.precision import require_precision
from mmkgc_cli.training.program import ScorerProgram
from mmkgc_cli.training.settings import OneVsAllLoss


def known_triples(graph: Graph) -> KnownTriples:
    """Builds the filter of the protocol: the triples of train, valid and test."""
    return KnownTriples(list(graph.splits.values()), len(graph.entities), len(graph.relations))


def valid_triples(config: RunConfig, graph: Graph) -> Triples:
    """The valid triples for selection: all, or a sample that depends on the seed."""
    sample = config.validation.sample
    if not 0 < sample < len(graph.valid):
        return graph.valid
    rng = generator(config.training.seed, "valid sample")
    rows: Triples = graph.valid[
        torch.randperm(len(graph.valid), generator=rng)[:sample].sort().values.numpy()
    ]
    return rows


def build_scorer(
    config: RunConfig,
    graph: Graph,
    device: torch.device,
    features: Mapping[str, Features] = NO_FEATURES,
) -> Scorer:
    """A new scorer on `device`; its initial values depend on the seed and `features` alone."""
    scorer_class = load_scorer(config.scorer)
    rng = generator(config.training.seed, "initial values")
    # The constructor of a scorer without modalities need not accept features.
    options: dict[str, Any] = {"features": features} if features else {}
    scorer = scorer_class(config.model, len(graph.entities), len(graph.relations), rng, **options)
    return scorer.to(device)


def initial_scorer(
    config: RunConfig,
    graph: Graph,
    device: torch.device,
    features: Mapping[str, Features] = NO_FEATURES,
    *,
    run: Path | None = None,
) -> Scorer:
    """The scorer at the start of a run; sets threads, seeds and memory of the process.

    Args:
        config: all settings.
        graph: the graph.
        device: where to compute.
        features: features by modality.
        run: where a training writes; its memory and disk are checked before the scorer takes any.

    Raises:
        DataError: when the device does not support the precision.
        MmkgcError: when memory or disk do not suffice.
    """
    require_precision(config.training.precision, device)
    if run is not None:
        shapes = shapes_of(lambda: build_scorer(config, graph, torch.device("meta"), features))
        if shapes is not None:
            check_room(config, shapes, run, device)
    keep_freed_memory()
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    # For layers such as dropout; all other randomness has its own streams.
    torch.manual_seed(stream_seed(config.training.seed, "layers"))
    scorer = build_scorer(config, graph, device, features)
    if run is not None and shapes is None:
        check_room(config, scorer, run, device)
    return scorer


def build_program(config: RunConfig, scorer: Scorer, triples: Tensor) -> ScorerProgram:
    """Builds the step program that the configuration selects."""
    if config.negatives is None:
        assert isinstance(config.loss, OneVsAllLoss)
        return AllCandidates(
            scorer,
            triples,
            training=config.training,
            loss=config.loss,
            optimizer=config.optimizer,
            schedule=config.schedule,
        )
    return LinkPrediction(
        scorer,
        triples,
        training=config.training,
        negatives=config.negatives,
        loss=config.loss,
        optimizer=config.optimizer,
        schedule=config.schedule,
        sampler=load_sampler(config.negatives.sampler),
        sampler_config=config.sampler,
    )


def with_cuda_graph(
    config: RunConfig, program: ScorerProgram, record: Callable[[str | None], None]
) -> StepProgram:
    """Returns `program` with steps in a CUDA graph, if it is on a GPU and can be captured.

    On a GPU, `record` is called once: with None after the capture, or with the reason why steps
    cannot be captured.
    """
    if program.rows.device.type != "cuda":
        return program
    return cuda_graph.with_cuda_graph(program, config.training.cuda_graph, record)


def try_ranking(scorer: Scorer, graph: Graph, known: KnownTriples, triples: int = 8) -> float:
    """Ranks a few valid triples, so that an error in ranking shows before the training.

    Returns:
        The seconds that it took.

    Raises:
        MmkgcError: as `rank`, also for scores that are not finite.
    """
    start = time.perf_counter()
    scorer.eval()
    rank(scorer, graph.valid[:triples], known)
    scorer.train()
    return time.perf_counter() - start


@dataclasses.dataclass(frozen=True)
class Prepared:
    """The parts of a training; `program` is None for a scorer without parameters."""

    scorer: Scorer
    program: ScorerProgram | None
    known: KnownTriples


def prepare(
    config: RunConfig,
    graph: Graph,
    run: Path,
    features: Mapping[str, Features] = NO_FEATURES,
) -> Prepared:
    """Assembles a training and ranks a few triples, before the run directory is touched.

    Raises:
        MmkgcError: when settings are incompatible, memory or disk do not suffice, or ranking fails.
    """
    device = pick_device(config.training.device)
    scorer = initial_scorer(config, graph, device, features, run=run)
    triples = torch.from_numpy(graph.train).to(device=device, dtype=torch.int64)
    scorer.fit(triples)
    known = known_triples(graph)
    if not list(scorer.parameters()):
        return Prepared(scorer, None, known)
    program = build_program(config, scorer, triples)
    try_ranking(scorer, graph, known)
    return Prepared(scorer, program, known)
