"""``mmkgc complete`` with a trained strategy: trains MACO in a run directory."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.completion.maco.generation import CandidateMeans, generate_vectors
from mmkgc_cli.completion.maco.model import Maco
from mmkgc_cli.completion.maco.program import MacoProgram
from mmkgc_cli.completion.pipeline import MeasureFunction, complete_store
from mmkgc_cli.completion.problem import CompletionProblem
from mmkgc_cli.completion.strategies import GeneratedVectors, Strategy
from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.runs.completion_config import CompletionConfig, read_completion, to_toml
from mmkgc_cli.runs.directory import RunDirectory, environment
from mmkgc_cli.runs.driver import Job, drive
from mmkgc_cli.runs.restore import load_same_graph
from mmkgc_cli.runs.sections import GraphConfig
from mmkgc_cli.state.atomic import write_json, write_text
from mmkgc_cli.state.checkpoints import Checkpoints
from mmkgc_cli.state.device import pick_device
from mmkgc_cli.state.memory import keep_freed_memory, peak_mib
from mmkgc_cli.state.rng import stream_seed
from mmkgc_cli.state.weights import save_weights
from mmkgc_cli.training.loop import Callback, EpochReport, Outcome, RunInfo, Schedule

# Candidates per entity when hidden vectors are measured during training.
MEASURED_CANDIDATES = 16


def run_completion(
    config: CompletionConfig,
    graph_folder: Path,
    run: RunDirectory,
    callbacks: Sequence[Callback] = (),
    *,
    overwrite: bool = False,
) -> dict[str, Any]:
    """Trains a strategy, fills a run directory and completes the feature store.

    Args:
        config: all settings.
        graph_folder: a prepared graph.
        run: where to write.
        callbacks: a display.
        overwrite: replace an existing run.

    Returns:
        The report of `pipeline.complete_store`, with the run and the end of its training.

    Raises:
        MmkgcError: when data or settings are invalid, or training fails; saved files stay whole.
        Interrupted: after SIGINT or SIGTERM, with a checkpoint to resume from.
    """
    run.require_free(overwrite=overwrite)
    graph = load_graph(graph_folder)
    section = GraphConfig(
        path=str(graph_folder.resolve()),
        name=graph.name,
        fingerprint=graph.fingerprint,
        order_id=graph.order_id,
    )
    with FeatureStore(Path(config.completion.store)) as store:
        sha256 = store.checksums.sha256
    completion = config.completion.model_copy(update={"sha256": sha256})
    config = config.model_copy(update={"graph": section, "completion": completion})

    return _complete(config, graph, run, callbacks, overwrite=overwrite)


def resume_completion(
    run: RunDirectory, graph_folder: Path | None, callbacks: Sequence[Callback] = ()
) -> dict[str, Any]:
    """Resumes a completion from its last checkpoint, or from the start if it has none.

    The result is identical to that of an uninterrupted completion. If the training is finished,
    the vectors are generated again.

    Raises:
        MmkgcError: as `run_completion`; also when graph or store are not those of the run.
    """
    run.require()
    config = read_completion(run.config)
    graph = load_same_graph(run, config.graph, graph_folder)
    path = Path(config.completion.store)
    with FeatureStore(path) as store:
        if store.checksums.sha256 != config.completion.sha256:
            raise DataError(
                f"{path}: not the feature store of this run: expected SHA-256 "
                f"{config.completion.sha256[:12]}…, got {store.checksums.sha256[:12]}…",
                fix="restore that store, or start a new run with --run",
            )
    _require_replaceable(Path(config.completion.out), config)
    return _complete(config, graph, run, callbacks, overwrite=None)


def _require_replaceable(out: Path, config: CompletionConfig) -> None:
    """Refuses to replace a feature store that this run did not write."""
    if not out.exists():
        return
    with FeatureStore(out) as store:
        completion = store.metadata.completion
    if completion.get("settings") != dataclasses.asdict(config.maco):
        raise UsageError(
            f"{out}: exists and was not written by this run", fix="move or remove that file"
        )


def _complete(
    config: CompletionConfig,
    graph: Graph,
    run: RunDirectory,
    callbacks: Sequence[Callback],
    *,
    overwrite: bool | None,
) -> dict[str, Any]:
    """Trains between the checks of the data and the writing of the store; None resumes."""
    outcome = Outcome()

    def trained_strategy(measure: MeasureFunction | None) -> Strategy:
        def make(problem: CompletionProblem, wanted: Tensor, iterations: int) -> GeneratedVectors:
            nonlocal outcome
            with run.locked():
                if overwrite is None:
                    state = _last_state(run)
                else:
                    state = None
                    run.create(overwrite=overwrite)
                    write_text(run.config, to_toml(config))
                if not run.environment.exists():  # new, or killed before this file was written
                    write_json(run.environment, environment())
                job = CompletionJob(config, graph, run, _program(config, problem), measure)
                outcome = drive(job, callbacks, state)
                completed = job.generate(wanted)
            settings = dataclasses.asdict(config.maco)
            return GeneratedVectors(completed.vectors.cpu(), completed.rejected.cpu(), settings)

        fallback = "the mean of all candidates, because none was accepted"
        return Strategy(config.strategy, make, excludes_own=True, fallback=fallback)

    section = config.completion
    request, store, out = section.request(config.strategy), Path(section.store), Path(section.out)
    report = complete_store(request, graph, store, out, trained_strategy)
    return report | {
        "run": str(run.path), "epochs": outcome.epochs, "stopped": outcome.stopped
    }  # fmt: skip


def _last_state(run: RunDirectory) -> dict[str, Any] | None:
    """The last checkpoint of a run; None if it was killed before its first one."""
    latest = Checkpoints(run.checkpoints, 1).latest()
    if latest is None and run.weights.exists():
        raise DataError(
            f"{run.path}: the run is finished and its checkpoints were removed",
            fix="complete into another run directory with --run",
        )
    return latest[1] if latest else None


def _program(config: CompletionConfig, problem: CompletionProblem) -> MacoProgram:
    """A fresh MACO; also sets up threads and random streams of the process."""
    settings, training = config.maco, config.training
    device = pick_device(training.device)
    keep_freed_memory()
    if training.threads:
        torch.set_num_threads(training.threads)
    torch.manual_seed(stream_seed(settings.seed, "layers"))  # for dropout
    vectors = torch.where(problem.observed[:, None], problem.vectors, 0.0).to(device)
    model = Maco(
        problem.triples, len(problem.names), problem.relations // 2, vectors.shape[1], settings
    )
    return MacoProgram(model.to(device), vectors, problem.observed.to(device))


class CompletionJob(Job[MacoProgram]):
    """The training of MACO. It measures hidden vectors, and keeps the last weights."""

    resume_command = "mmkgc complete --resume"
    program: MacoProgram

    def __init__(
        self,
        config: CompletionConfig,
        graph: Graph,
        run: RunDirectory,
        program: MacoProgram,
        measure: MeasureFunction | None,
    ) -> None:
        """`measure` is None when no vectors are hidden."""
        self.config = config
        self.graph = graph
        self.run = run
        self.program = program
        self.schedule = Schedule(config.maco.epochs, config.validation.every, 0, selects=False)
        self.rows = len(program.vectors)
        self.device = program.device
        self.checkpoints = config.checkpoints
        if measure is not None:
            self.validate = lambda: measure(
                lambda entities: self.generate(entities, MEASURED_CANDIDATES).vectors.cpu()
            )
        self.valid = {}
        parameters = program.model.parameters()
        self.info = RunInfo(
            folder=run.path,
            graph=graph,
            name=config.strategy,
            modality=config.completion.modality,
            parameters=sum(p.numel() for p in parameters if p.requires_grad),
            device=self.device.type,
            epochs=config.maco.epochs,
        )

    def generate(self, entities: Tensor, *candidates: int) -> CandidateMeans:
        """Vectors of entities, from the number of candidates in the settings or `candidates`."""
        return generate_vectors(self.program.model, entities.to(self.device), *candidates)

    def start(self, info: RunInfo) -> None:
        """Writes ``start`` to the trace of a new run."""
        if not self.trace.resumed:
            self.trace.write(
                "start", graph=self.graph.name, strategy=info.name, parameters=info.parameters
            )

    def epoch(self, report: EpochReport) -> None:
        """Writes ``epoch``."""
        self.trace.write(
            "epoch",
            epoch=report.epoch,
            losses=report.losses,
            epoch_seconds=report.epoch_seconds,
            entities_per_second=report.triples_per_second,
            hidden=report.valid,
            memory_mib=peak_mib(self.device),
        )

    def end(self, outcome: Outcome) -> None:
        """Saves the weights and writes ``end``, unless a signal interrupted the training."""
        if outcome.interrupted:
            return
        metadata = {
            "strategy": self.config.strategy,
            "epoch": str(outcome.epochs),
            "fingerprint": self.graph.fingerprint,
            "order_id": self.graph.order_id,
        }
        save_weights(self.run.weights, self.program.model.state_dict(), metadata)
        self.trace.write("end", stopped=outcome.stopped, epochs=outcome.epochs)
