"""Estimates time, memory and disk of a training from a few steps."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path

import numpy as np
import torch

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.runs.assembly import (
    build_program,
    initial_scorer,
    known_triples,
    try_ranking,
    valid_triples,
    with_cuda_graph,
)
from mmkgc_cli.runs.features import read_features
from mmkgc_cli.runs.resources import disk_mib, free_disk_mib
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.state.device import pick_device
from mmkgc_cli.state.memory import peak_mib
from mmkgc_cli.training import cuda_graph

WARM_UP, MEASURED = cuda_graph.WARM_UP + 2, 20  # steps; the capture is not counted
SLICE = 512  # valid triples that are ranked to estimate the time of all


@dataclasses.dataclass(frozen=True)
class Estimate:
    """Time, memory and disk of a training that does not stop early."""

    parameters: int
    memory_mib: float  # peak while measuring
    disk_mib: float  # weights and checkpoints
    free_disk_mib: float
    seconds_per_epoch: float
    seconds_per_validation: float
    seconds: float  # of all epochs and validations


def estimate(config: RunConfig, graph: Graph, run: Path) -> Estimate:
    """Measures a few steps and a part of a validation; writes nothing.

    Raises:
        MmkgcError: when memory or disk do not suffice.
    """
    device = pick_device(config.training.device)
    features = read_features(config, graph).features
    scorer = initial_scorer(config, graph, device, features, run=run)
    triples = torch.from_numpy(graph.train).to(device=device, dtype=torch.int64)
    scorer.fit(triples)
    known = known_triples(graph)
    parameters = sum(p.numel() for p in scorer.parameters())
    seconds_per_epoch = 0.0
    if parameters:
        program = with_cuda_graph(config, build_program(config, scorer, triples), lambda _: None)
        program.start_epoch()
        steps = program.steps_per_epoch
        for index in range(WARM_UP):
            program.step(index % steps)
        _wait(device)
        start = time.perf_counter()
        for index in range(MEASURED):
            program.step(index % steps)
        _wait(device)
        seconds_per_epoch = (time.perf_counter() - start) / MEASURED * steps
    n = min(SLICE, len(valid_triples(config, graph)))
    fixed = try_ranking(scorer, graph, known, 1)
    per_triple = max(0.0, try_ranking(scorer, graph, known, n) - fixed) / max(1, n)
    seconds_per_validation = fixed + per_triple * len(valid_triples(config, graph))
    epochs = config.training.epochs if parameters else 0
    validations = int(np.ceil(epochs / config.validation.every)) if epochs else 1
    return Estimate(
        parameters,
        peak_mib(device),
        disk_mib(config, scorer),
        free_disk_mib(run),
        seconds_per_epoch,
        seconds_per_validation,
        epochs * seconds_per_epoch + validations * seconds_per_validation,
    )


def _wait(device: torch.device) -> None:
    if device.type == "cuda":
        torch.cuda.synchronize(device)
