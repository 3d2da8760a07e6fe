"""Before a training starts: its parts, whether they fit, and what the training would take."""

from __future__ import annotations

import dataclasses
import shutil
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.evaluation.known import KnownTriples
from mmkgc_cli.evaluation.ranker import rank
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.ops import SideChoice
from mmkgc_cli.runs.features import read_features
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.scoring import Features, Scorer, load_scorer
from mmkgc_cli.scoring.contract import NO_FEATURES
from mmkgc_cli.scoring.pieces import kept_tensors
from mmkgc_cli.state.device import pick_device
from mmkgc_cli.state.memory import keep_freed_memory, peak_mib
from mmkgc_cli.state.rng import generator, stream_seed
from mmkgc_cli.training import captured
from mmkgc_cli.training.all_candidates import AllCandidates, AllCandidatesSettings
from mmkgc_cli.training.link_prediction import LinkPrediction, LinkPredictionSettings
from mmkgc_cli.training.loop import StepProgram
from mmkgc_cli.training.losses import LossSettings
from mmkgc_cli.training.optimization import OptimizationSettings
from mmkgc_cli.training.precision import require_precision
from mmkgc_cli.training.program import ScorerProgram
from mmkgc_cli.training.sampler_registry import load_sampler

WARM_UP, MEASURED = captured.WARM_UP + 2, 20  # steps; the capture is no part of an epoch
SLICE = 512  # valid triples ranked to see how long all take


@dataclasses.dataclass(frozen=True)
class Estimate:
    """What a training would take, from a few measured steps; it may stop early."""

    parameters: int
    memory_mib: float  # the most that was held while measuring
    disk_mib: float  # weights and checkpoints
    free_disk_mib: float
    seconds_per_epoch: float
    seconds_per_validation: float
    seconds: float  # of all epochs and validations


def known_triples(graph: Graph) -> KnownTriples:
    """The filter of the protocol: train, valid and test together."""
    return KnownTriples(list(graph.splits.values()), len(graph.entities), len(graph.relations))


def build_scorer(
    config: RunConfig,
    graph: Graph,
    device: torch.device,
    features: Mapping[str, Features] = NO_FEATURES,
) -> Scorer:
    """A fresh scorer on `device`, its initial values from the seed and `features` alone."""
    scorer_class = load_scorer(config.scorer)
    rng = generator(config.training.seed, "initial values")
    # Whoever declares no modalities need not take any.
    told: dict[str, Any] = {"features": features} if features else {}
    scorer = scorer_class(config.model, len(graph.entities), len(graph.relations), rng, **told)
    return scorer.to(device)


def initial_scorer(
    config: RunConfig,
    graph: Graph,
    device: torch.device,
    features: Mapping[str, Features] = NO_FEATURES,
) -> Scorer:
    """The scorer at the start of a run, and the process made ready to train it.

    Raises:
        DataError: when the device does not offer the precision.
    """
    require_precision(config.training.precision, device)
    keep_freed_memory()
    if config.training.threads:
        torch.set_num_threads(config.training.threads)
    # What layers such as dropout draw; everything of ours has streams of its own.
    torch.manual_seed(stream_seed(config.training.seed, "layers"))
    return build_scorer(config, graph, device, features)


def build_program(config: RunConfig, scorer: Scorer, triples: Tensor) -> ScorerProgram:
    """What a step does, as the configuration says."""
    settings = config.training
    optimization = OptimizationSettings(
        optimizer=settings.optimizer,
        lr=settings.lr,
        weight_decay=settings.weight_decay,
        schedule=settings.schedule,
        warmup_epochs=settings.warmup_epochs,
        decay=settings.decay,
        clip_norm=settings.clip_norm,
        average=settings.average,
    )
    if settings.candidates == "all":
        assert settings.loss == "bce" or settings.loss == "softmax"  # others were refused
        return AllCandidates(
            scorer,
            triples,
            AllCandidatesSettings(
                batch_size=settings.batch_size,
                seed=settings.seed,
                precision=settings.precision,
                loss=settings.loss,
                smoothing=settings.label_smoothing,
                smoothing_adds=settings.label_smoothing_adds,
            ),
            optimization,
            settings.epochs,
        )
    return LinkPrediction(
        scorer,
        triples,
        LinkPredictionSettings(
            batch_size=settings.batch_size,
            negatives=settings.negatives,
            negative_sampling=settings.negative_sampling,
            negative_side=SideChoice[settings.negative_side.replace("-", "_")],
            seed=settings.seed,
            loss=LossSettings(
                loss=settings.loss,
                temperature=settings.adversarial_temperature,
                margin=settings.loss_margin,
                reduction=settings.negative_reduction,
                thresholds=(settings.entropy_thresholds[0], settings.entropy_thresholds[1]),
                weights=(
                    settings.entropy_weights[0],
                    settings.entropy_weights[1],
                    settings.entropy_weights[2],
                ),
                one_sided=settings.entropy_one_sided,
            ),
            precision=settings.precision,
            sampler=load_sampler(settings.sampler),
            sampler_config=config.sampler,
        ),
        optimization,
        settings.epochs,
    )


def replayed(
    config: RunConfig, program: ScorerProgram, tell: Callable[[str | None], None]
) -> StepProgram:
    """The program as it is trained: on a GPU from a CUDA graph where that is possible.

    On a GPU `tell` is told that it is (None), or why not.
    """
    if program.rows.device.type != "cuda":
        return program
    return captured.replayed(program, config.training.cuda_graph, tell)


def valid_triples(config: RunConfig, graph: Graph) -> Triples:
    """The valid triples that weights are selected on: all, or a sample that the seed decides."""
    sample = config.training.eval_sample
    if not 0 < sample < len(graph.valid):
        return graph.valid
    rng = generator(config.training.seed, "valid sample")
    chosen: Triples = graph.valid[
        torch.randperm(len(graph.valid), generator=rng)[:sample].sort().values.numpy()
    ]
    return chosen


def state_mib(config: RunConfig, scorer: Scorer) -> tuple[float, float]:
    """Size of the weights, and of a checkpoint with what the optimizer keeps of them."""
    trained = sum(p.numel() * p.element_size() for p in scorer.parameters()) / 2**20
    whole = sum(t.numel() * t.element_size() for t in kept_tensors(scorer).values()) / 2**20
    moments = 1 if config.training.optimizer == "adagrad" else 2
    return whole, trained * (1 + moments + bool(config.training.average))


def check_room(config: RunConfig, scorer: Scorer, run: Path) -> None:
    """Holds what a training keeps against what there is; nothing where there is nothing to train.

    Raises:
        MmkgcError: naming what cannot fit, and how to make it.
    """
    if not list(scorer.parameters()):
        return
    _, checkpoint = state_mib(config, scorer)
    # The weights are there; gradients may be as large, and come one table after another.
    needed, free = checkpoint, free_memory_mib(next(scorer.parameters()).device)
    if free is not None and needed > free:
        raise MmkgcError(
            f"training needs some {needed:,.0f} MiB more of memory, {free:,.0f} MiB are free; take "
            "a smaller model.dim, or training.optimizer=adagrad, which keeps half as much"
        )
    disk, free_disk = disk_mib(config, scorer), free_disk_mib(run)
    if disk > free_disk:
        raise MmkgcError(
            f"{run}: weights and checkpoints take some {disk:,.0f} MiB, {free_disk:,.0f} MiB are "
            "free; free some room, or set training.keep_checkpoints=1"
        )


def disk_mib(config: RunConfig, scorer: Scorer) -> float:
    """What the files of a run take at most; a file is written before the old one goes."""
    weights, checkpoint = state_mib(config, scorer)
    return 2 * weights + (config.training.keep_checkpoints + 1) * checkpoint


def free_disk_mib(path: Path) -> float:
    """Room on the disk that `path` is or would be on."""
    there = next(p for p in (path, *path.absolute().parents) if p.exists())
    return shutil.disk_usage(there).free / 2**20


def free_memory_mib(device: torch.device) -> float | None:
    """Memory that can be had; None where nobody says."""
    if device.type == "cuda":
        return torch.cuda.mem_get_info(device)[0] / 2**20
    try:
        lines = Path("/proc/meminfo").read_text().splitlines()
    except OSError:
        return None
    sizes = dict(line.split(":", 1) for line in lines)
    return int(sizes["MemAvailable"].split()[0]) / 2**10 if "MemAvailable" in sizes else None


def try_ranking(scorer: Scorer, graph: Graph, known: KnownTriples, triples: int = 8) -> float:
    """Ranks a few valid triples, so that what fails there fails before the training; seconds.

    Weights are as they were at the start: scores that are not finite are an error then, too.
    """
    start = time.perf_counter()
    scorer.eval()
    rank(scorer, graph.valid[:triples], known)
    scorer.train()
    return time.perf_counter() - start


@dataclasses.dataclass(frozen=True)
class Prepared:
    """A training that can begin: the scorer is fitted and ranks; no `program` where none learns."""

    scorer: Scorer
    program: ScorerProgram | None
    known: KnownTriples


def prepare(
    config: RunConfig,
    graph: Graph,
    run: Path,
    features: Mapping[str, Features] = NO_FEATURES,
) -> Prepared:
    """Makes what a training needs, so that what fails there fails before a run is touched.

    Raises:
        MmkgcError: when settings do not go together, something does not fit, or ranking fails.
    """
    device = pick_device(config.training.device)
    scorer = initial_scorer(config, graph, device, features)
    check_room(config, scorer, run)
    triples = torch.from_numpy(graph.train).to(device=device, dtype=torch.int64)
    scorer.fit(triples)
    known = known_triples(graph)
    if not list(scorer.parameters()):
        return Prepared(scorer, None, known)
    program = build_program(config, scorer, triples)
    try_ranking(scorer, graph, known)
    return Prepared(scorer, program, known)


def estimate(config: RunConfig, graph: Graph, run: Path) -> Estimate:
    """Measures a few steps and a part of a validation; writes nothing.

    Raises:
        MmkgcError: when something does not fit.
    """
    settings = config.training
    device = pick_device(settings.device)
    features = read_features(config, graph).given
    scorer = initial_scorer(config, graph, device, features)
    triples = torch.from_numpy(graph.train).to(device=device, dtype=torch.int64)
    scorer.fit(triples)
    known = known_triples(graph)
    parameters = sum(p.numel() for p in scorer.parameters())
    seconds_per_epoch = 0.0
    if parameters:
        check_room(config, scorer, run)
        program = replayed(config, build_program(config, scorer, triples), lambda _: None)
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
    slope = max(0.0, try_ranking(scorer, graph, known, n) - fixed) / max(1, n)
    seconds_per_validation = fixed + slope * len(valid_triples(config, graph))
    epochs = settings.epochs if parameters else 0
    validations = int(np.ceil(epochs / settings.eval_every)) if epochs else 1
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
