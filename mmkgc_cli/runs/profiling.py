"""Times of the parts of a training step, and the time that memory traffic alone would take."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass

import torch

from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.runs.assembly import build_program, initial_scorer
from mmkgc_cli.runs.features import read_features
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.scoring import Scorer
from mmkgc_cli.scoring.scores import candidate_width
from mmkgc_cli.state.device import pick_device
from mmkgc_cli.state.memory import frozen_gc

WARM_UP = 5
PROBE = 1 << 26  # bytes to copy, to measure the memory bandwidth


@dataclass(frozen=True)
class Part:
    """One part of a step: medians in milliseconds.

    `floor_ms` is the time of its minimal memory traffic at the bandwidth of a copy: candidates,
    scores, and for the update weights and moments.
    """

    name: str
    ms: float
    floor_ms: float


@dataclass(frozen=True)
class Profile:
    """Times of a step and of an epoch."""

    parts: list[Part]
    step_ms: float  # includes the loop, so it exceeds the sum of the parts
    seconds_per_epoch: float
    copy_gb_per_second: float


class NothingToTrain(Exception):
    """The scorer has no parameters."""


class _Watch:
    """Collects the times of its contexts by name."""

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.ms: dict[str, list[float]] = defaultdict(list)

    @contextlib.contextmanager
    def __call__(self, name: str) -> Iterator[None]:
        start = time.perf_counter()
        yield
        self.wait()
        self.ms[name].append(1e3 * (time.perf_counter() - start))

    def wait(self) -> None:
        """Waits for a GPU; otherwise its work would be counted in a later part."""
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)


def profile(config: RunConfig, graph: Graph, steps: int) -> Profile:
    """Trains a new scorer for `steps` steps and times their parts; writes nothing.

    Raises:
        NothingToTrain: when the scorer has no parameters.
    """
    device = pick_device(config.training.device)
    scorer = initial_scorer(config, graph, device, read_features(config, graph).features)
    triples = torch.from_numpy(graph.train).to(device=device, dtype=torch.int64)
    scorer.fit(triples)
    if not list(scorer.parameters()):
        raise NothingToTrain
    program = build_program(config, scorer, triples)
    program.start_epoch()
    per_epoch = program.steps_per_epoch
    watch = _Watch(device)
    step_times: list[float] = []
    with frozen_gc():
        for index in range(WARM_UP):
            program.step(index % per_epoch)
        program.watch = watch
        for index in range(steps):
            watch.wait()
            start = time.perf_counter()
            program.step(index % per_epoch)
            watch.wait()
            step_times.append(1e3 * (time.perf_counter() - start))
    speed = _copy_speed(device)
    floors = _least_bytes(config, scorer)
    parts = [
        Part(name, statistics.median(ms), 1e3 * floors[name] / speed)
        for name, ms in watch.ms.items()
    ]
    step_ms = statistics.median(step_times)
    return Profile(parts, step_ms, step_ms * per_epoch / 1e3, speed / 1e9)


@torch.no_grad()
def _least_bytes(config: RunConfig, scorer: Scorer) -> dict[str, float]:
    """Minimal bytes that each part reads and writes."""
    batch, optimizer = config.training.batch_size, config.optimizer.name
    width, entities = candidate_width(scorer), scorer.n_entities
    candidates = batch * (config.negatives.count + 1 if config.negatives else entities)
    rows = 4 * width * min(entities, candidates)
    queries = 4 * width * 2 * batch
    weights = sum(p.numel() * p.element_size() for p in scorer.parameters())
    copies = 2 if optimizer == "adagrad" else 3  # of each weight: itself and its moments
    moved = min(weights, rows) if optimizer == "lazy-adam" else weights
    return {
        "negatives": candidates * (8 + 1 + 1 + 8),
        "loss": rows + queries + 3 * 4 * candidates,
        "gradients": 2 * queries,
        "update": 2 * copies * moved,
        "auxiliaries": sum(
            2 * 3 * p.numel() * p.element_size() / auxiliary.every
            for auxiliary in scorer.auxiliaries()
            for p in auxiliary.parameters
        ),
    }


def _copy_speed(device: torch.device) -> float:
    """Bytes per second that a copy reads and writes, the best of ten."""
    source = torch.ones(PROBE // 4, device=device)
    target = torch.empty_like(source)
    best = 0.0
    for _ in range(10):
        start = time.perf_counter()
        target.copy_(source)
        if device.type == "cuda":
            torch.cuda.synchronize(device)
        best = max(best, 2 * PROBE / (time.perf_counter() - start))
    return best
