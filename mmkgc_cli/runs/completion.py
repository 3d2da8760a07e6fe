"""The job behind `mmkgc complete` with a strategy that is trained: MACO in a run directory."""

from __future__ import annotations

import contextlib
import dataclasses
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor

from mmkgc_cli.completion.maco.generation import complete as generate
from mmkgc_cli.completion.maco.model import Maco
from mmkgc_cli.completion.maco.program import MacoProgram
from mmkgc_cli.completion.pipeline import Measure, complete
from mmkgc_cli.completion.problem import Problem
from mmkgc_cli.completion.strategies import Made, Strategy
from mmkgc_cli.errors import DataError, MmkgcError, UsageError
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.runs.checkpointing import CheckpointKeeper
from mmkgc_cli.runs.completion_config import CompletionConfig, read_completion, to_toml
from mmkgc_cli.runs.directory import RunDirectory, environment
from mmkgc_cli.runs.restore import load_same_graph
from mmkgc_cli.runs.sections import GraphConfig
from mmkgc_cli.state.atomic import write_json, write_text
from mmkgc_cli.state.checkpoints import Checkpoints
from mmkgc_cli.state.device import pick_device
from mmkgc_cli.state.memory import keep_freed_memory, peak_mib, settled_objects
from mmkgc_cli.state.rng import stream_seed
from mmkgc_cli.state.signals import StopRequest
from mmkgc_cli.state.trace import Trace
from mmkgc_cli.state.weights import save_weights
from mmkgc_cli.training.loop import EpochReport, Outcome, Schedule, train

# Candidates an entity, where completion is measured on the way.
WATCHED = 16


class Watcher(Protocol):
    """A display that is told how training goes."""

    def begin_completion(
        self, graph: Graph, config: CompletionConfig, parameters: int, device: str
    ) -> None:
        """Called once before the first step."""

    def step(self, epoch: int, done: int, total: int) -> None:
        """Called after each step."""

    def epoch(self, report: EpochReport) -> None:
        """Called after each epoch; `valid` holds measures on what was hidden, where they are."""


def run_completion(
    config: CompletionConfig, graph_folder: Path, run: RunDirectory, overwrite: bool,
    watcher: Watcher,
) -> dict[str, Any]:  # fmt: skip
    """Trains, fills a run directory, and completes the store.

    Returns:
        The report of `completion.completing.complete`, with the run and how training ended.

    Raises:
        MmkgcError: as the parts say; what is already saved stays whole.
        Interrupted: after SIGINT or SIGTERM, with a checkpoint to resume from.
    """
    run.require_free(overwrite)
    graph = load_graph(graph_folder)
    about = GraphConfig(
        path=str(graph_folder.resolve()), name=graph.name, fingerprint=graph.fingerprint,
        order_id=graph.order_id,
    )  # fmt: skip
    with FeatureStore(Path(config.completion.store)) as store:
        sha256 = store.checksums.sha256
    completion = config.completion.model_copy(update={"sha256": sha256})
    config = config.model_copy(update={"graph": about, "completion": completion})
    return _Job(config, graph, run, watcher, overwrite).complete()


def resume_completion(
    run: RunDirectory, graph_folder: Path | None, watcher: Watcher
) -> dict[str, Any]:
    """Goes on from the last checkpoint of a run, as if it had not been stopped.

    A run whose training is over makes its vectors again.

    Raises:
        MmkgcError: as `run_completion`; also when graph or store are not those it began with.
    """
    run.require()
    config = read_completion(run.config)
    graph = load_same_graph(run, config.graph, graph_folder)
    store = Path(config.completion.store)
    with FeatureStore(store) as now:
        if now.checksums.sha256 != config.completion.sha256:
            raise DataError(
                f"{store}: not the store that the run began with: expected SHA-256 "
                f"{config.completion.sha256[:12]}…, got {now.checksums.sha256[:12]}…; put that back"
            )
    _may_replace(Path(config.completion.out), config)
    return _Job(config, graph, run, watcher, None).complete()


def _may_replace(out: Path, config: CompletionConfig) -> None:
    """Refuses to replace what this run did not write."""
    if not out.exists():
        return
    with FeatureStore(out) as store:
        completion = store.metadata.completion
    if completion.get("settings") != dataclasses.asdict(config.maco):
        raise UsageError(f"{out}: is there already and not of this run; move it away")


class _Job:
    """One completion; `overwrite` None resumes."""

    def __init__(
        self, config: CompletionConfig, graph: Graph, run: RunDirectory, watcher: Watcher,
        overwrite: bool | None,
    ) -> None:  # fmt: skip
        self.config, self.graph, self.run = config, graph, run
        self.watcher, self.overwrite = watcher, overwrite
        self.outcome = Outcome()
        self._measure: Measure | None = None

    def complete(self) -> dict[str, Any]:
        """Trains between the checks of the data and the writing of the store."""
        about = self.config.completion
        report = complete(
            about.request(self.config.strategy), self.graph, Path(about.store), Path(about.out),
            self._strategy,
        )  # fmt: skip
        return report | {
            "run": str(self.run.path), "epochs": self.outcome.epochs,
            "stopped": self.outcome.stopped,
        }  # fmt: skip

    def _strategy(self, measure: Measure | None) -> Strategy:
        self._measure = measure
        return Strategy(
            self.config.strategy, self._make, own=True,
            fallback="the mean of all candidates, as none was taken for real",
        )  # fmt: skip

    def _make(self, problem: Problem, wanted: Tensor, iterations: int) -> Made:
        with self.run.locked():
            state = None
            if self.overwrite is None:
                found = Checkpoints(self.run.checkpoints, 1).latest()
                state = found[1] if found else None
                if state is None and self.run.weights.exists():
                    raise DataError(
                        f"{self.run.path}: is finished and has no checkpoints any more, so there "
                        "is nothing to go on from; complete into another --run"
                    )
                if not self.run.environment.exists():  # killed just before it could write this
                    write_json(self.run.environment, environment())
            else:
                self.run.create(self.overwrite)
                write_text(self.run.config, to_toml(self.config))
                write_json(self.run.environment, environment())
            program = self._program(problem)
            self._train(program, state)
            done = generate(program.model, wanted.to(program.device))
        return Made(done.vectors.cpu(), done.rejected.cpu(), dataclasses.asdict(self.config.maco))

    def _program(self, problem: Problem) -> MacoProgram:
        settings, training = self.config.maco, self.config.training
        device = pick_device(training.device)
        keep_freed_memory()
        if training.threads:
            torch.set_num_threads(training.threads)
        torch.manual_seed(stream_seed(settings.seed, "layers"))  # what dropout draws
        vectors = torch.where(problem.observed[:, None], problem.vectors, 0.0).to(device)
        model = Maco(
            problem.triples, len(problem.names), problem.relations // 2, vectors.shape[1], settings
        ).to(device)
        return MacoProgram(model, vectors, problem.observed.to(device))

    def _train(self, program: MacoProgram, state: dict[str, Any] | None) -> None:
        config, training, device = self.config, self.config.training, program.device
        model = program.model
        parameters = sum(p.numel() for p in model.parameters() if p.requires_grad)
        self.watcher.begin_completion(self.graph, config, parameters, device.type)
        position, seconds = state["trace"] if state else (0, 0.0)
        with (
            Trace(self.run.trace, position, seconds) as trace,
            StopRequest() as stop,
            settled_objects(),
        ):
            if state is None:
                trace.write("start", graph=self.graph.name, strategy=config.strategy,
                            parameters=parameters)  # fmt: skip
            else:
                trace.write("resume", threads=torch.get_num_threads(), device=device.type)
            keeper: CheckpointKeeper[MacoProgram] = CheckpointKeeper(
                self.run, trace, device, training.checkpoint_seconds, training.keep_checkpoints
            )
            keeper.program = program
            schedule = Schedule(config.maco.epochs, training.eval_every, 0, selects=False)
            progress = keeper.restore(state) if state else None
            try:
                self.outcome = train(
                    program, schedule, len(program.vectors), self._measuring(program), keeper,
                    _Reports(trace, self.watcher, device), stop, progress,
                )  # fmt: skip
            except Exception as error:
                if isinstance(error, MmkgcError):
                    with contextlib.suppress(DataError):  # the disk may be what failed
                        trace.write("error", message=str(error))
                raise
            stop.raise_if_asked(
                f"stopped by a signal in epoch {self.outcome.epochs + 1}; go on with: mmkgc "
                f"complete --resume {self.run.path}"
            )
            about = {
                "strategy": config.strategy, "epoch": str(self.outcome.epochs),
                "fingerprint": self.graph.fingerprint, "order_id": self.graph.order_id,
            }  # fmt: skip
            save_weights(self.run.weights, model.state_dict(), about)
            trace.write("end", stopped=self.outcome.stopped, epochs=self.outcome.epochs)

    def _measuring(self, program: MacoProgram) -> Any:
        """Measures on what was hidden, if anything was; it decides nothing."""
        measure = self._measure
        if measure is None:
            return None

        def made(entities: Tensor) -> Tensor:
            found = generate(program.model, entities.to(program.device), WATCHED)
            return found.vectors.cpu()

        return lambda: measure(made)


class _Reports:
    """What the loop tells: into the trace, and to who watches."""

    def __init__(self, trace: Trace, watcher: Watcher, device: torch.device) -> None:
        self.trace, self.watcher, self.device = trace, watcher, device

    def step(self, epoch: int, done: int, total: int) -> None:
        self.watcher.step(epoch, done, total)

    def epoch(self, report: EpochReport) -> None:
        self.trace.write(
            "epoch", epoch=report.epoch, losses=report.losses, epoch_seconds=report.epoch_seconds,
            entities_per_second=report.triples_per_second, hidden=report.valid,
            memory_mib=peak_mib(self.device),
        )  # fmt: skip
        self.watcher.epoch(report)
