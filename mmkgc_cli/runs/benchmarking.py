"""Training and ranking speed of a scorer, in turns with RotatE on the same triples."""

from __future__ import annotations

import statistics
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmkgc_cli.errors import DataError
from mmkgc_cli.evaluation.known import KnownTriples
from mmkgc_cli.evaluation.ranker import rank
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.runs.assembly import build_program, initial_scorer, known_triples
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.features import needed_modalities, random_features, read_features
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.scoring import load_scorer
from mmkgc_cli.state.device import pick_device
from mmkgc_cli.state.memory import frozen_gc
from mmkgc_cli.text import counted

PEER = "rotate"
DEFAULT_DIM = 128
WARM_UP = 3  # steps
# Size of the synthetic graph; entities and relations as in FB15K-237.
ENTITIES, RELATIONS, TRIPLES = 14_541, 237, 100_000
WIDTH = 768  # of random features, if no feature store is given


@dataclass(frozen=True)
class Rates:
    """Medians in triples per second; `training` is None for a scorer without parameters."""

    scorer: str
    dim: int | None
    training: float | None
    ranking: float


@dataclass(frozen=True)
class Comparison:
    """A scorer and RotatE, measured in turns."""

    graph: str
    device: str
    scorer: Rates
    against: Rates

    @property
    def ratio(self) -> dict[str, float | None]:
        """The scorer's rates divided by RotatE's: above 1, the scorer is faster."""
        ours, peer = self.scorer, self.against
        trains = ours.training is not None and peer.training is not None
        return {
            "training": ours.training / peer.training if trains else None,  # type: ignore[operator]
            "ranking": ours.ranking / peer.ranking,
        }


@dataclass
class _Contender:
    """One of the two scorers, and its times so far in seconds per triple."""

    config: RunConfig
    graph: Graph
    known: KnownTriples
    training: list[float] = field(default_factory=list)
    ranking: list[float] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.device = pick_device(self.config.training.device)
        if self.config.features.paths:
            features = read_features(self.config, self.graph).features
        else:
            features = random_features(
                needed_modalities(self.config), len(self.graph.entities), WIDTH
            )
        self.scorer = initial_scorer(self.config, self.graph, self.device, features)
        triples = torch.from_numpy(self.graph.train).to(device=self.device, dtype=torch.int64)
        self.scorer.fit(triples)
        self.program = None
        if list(self.scorer.parameters()):
            self.program = build_program(self.config, self.scorer, triples)
            self.program.start_epoch()
            self._steps(WARM_UP)

    def _steps(self, steps: int) -> float:
        """Trains for a number of steps; returns the number of positives."""
        assert self.program is not None
        per_epoch, size = self.program.steps_per_epoch, self.config.training.batch_size
        for index in range(steps):
            self.program.step(index % per_epoch)
        if self.device.type == "cuda":
            torch.cuda.synchronize(self.device)
        n = len(self.program.rows)
        rows = sum(min(size, n - index % per_epoch * size) for index in range(steps))
        # One epoch covers all train triples, also if its rows are queries.
        return rows * len(self.graph.train) / n

    def turn(self, steps: int, ranked: int) -> None:
        """Times one round of training and ranking."""
        if self.program is not None:
            start = time.perf_counter()
            positives = self._steps(steps)
            self.training.append((time.perf_counter() - start) / positives)
        self.scorer.eval()
        triples = self.graph.valid[:ranked]
        start = time.perf_counter()
        rank(self.scorer, triples, self.known)
        self.ranking.append((time.perf_counter() - start) / len(triples))
        self.scorer.train()

    def rates(self) -> Rates:
        """Medians over the turns."""
        training = 1 / statistics.median(self.training) if self.training else None
        dim = getattr(self.config.model, "dim", None)
        return Rates(self.config.scorer, dim, training, 1 / statistics.median(self.ranking))


def bench(
    name: str,
    folder: Path | None,
    *,
    dim: int | None,
    flags: Mapping[tuple[str, str], Any],
    overrides: Sequence[str],
    turns: int,
    steps: int,
    ranked: int,
) -> Comparison:
    """Measures the scorer `name` and RotatE in turns.

    Args:
        name: of the scorer.
        folder: a prepared graph; None uses a synthetic graph.
        dim: ``model.dim`` of both; None uses the default of the scorer, or 128 if it has none.
        flags: values of command-line flags by (section, key).
        overrides: texts of ``--set``; those outside ``model`` and ``features`` apply to both.
        turns: number of measurements of each.
        steps: training steps per turn.
        ranked: valid triples per turn, ranked on both sides.

    Raises:
        MmkgcError: when settings or data are invalid, or training or ranking fails.
    """
    model_class = load_scorer(name).Config
    scorer_flags = dict(flags)
    if dim is not None and "dim" in model_class.model_fields:
        scorer_flags["model", "dim"] = dim
    config = resolve(name, model_class, flags=scorer_flags, overrides=overrides)
    scorer_sections = ("model.", "features.")
    shared = [text for text in overrides if not text.strip().startswith(scorer_sections)]
    width = dim or getattr(config.model, "dim", None)
    peer_flags = {**flags, ("model", "dim"): width if isinstance(width, int) else DEFAULT_DIM}
    peer = resolve(PEER, load_scorer(PEER).Config, flags=peer_flags, overrides=shared)
    graph = synthetic_graph() if folder is None else load_graph(folder)
    if not len(graph.valid) or not len(graph.train):
        raise DataError(
            f"{folder}: the graph has no train or no valid triples",
            fix="pass another --graph, or leave it out to use a synthetic graph",
        )
    known = known_triples(graph)
    with frozen_gc():
        ours, against = (_Contender(c, graph, known) for c in (config, peer))
        for turn in range(turns):
            # The order alternates.
            for contender in (ours, against) if turn % 2 else (against, ours):
                contender.turn(steps, ranked)
    n = graph.counts
    size = f"{n['entities']:,} entities, {n['relations']:,} relations, {n['train']:,} train triples"
    threads = f", {counted(torch.get_num_threads(), 'thread')}" if ours.device.type == "cpu" else ""
    return Comparison(
        f"{graph.name}: {size}", f"{ours.device.type}{threads}", ours.rates(), against.rates()
    )


def synthetic_graph() -> Graph:
    """A fixed graph of random triples, with popular entities as in real graphs."""
    rng = np.random.default_rng(0)
    # Squares of uniform numbers: a quarter of the entities are heads or tails of half the triples.
    ends = (rng.random((2, TRIPLES)) ** 2 * ENTITIES).astype(np.int32)
    rows = np.stack([ends[0], rng.integers(RELATIONS, size=TRIPLES, dtype=np.int32), ends[1]], 1)
    rows = rng.permutation(np.unique(rows, axis=0))
    n_valid = len(rows) // 20
    return Graph(
        "synthetic",
        [f"e{i}" for i in range(ENTITIES)],
        [f"r{i}" for i in range(RELATIONS)],
        rows[2 * n_valid :],
        rows[:n_valid],
        rows[n_valid : 2 * n_valid],
    )
