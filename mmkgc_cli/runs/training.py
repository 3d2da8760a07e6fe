"""The job behind `mmkgc train`: from a configuration to files in a run."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, Protocol

import torch

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.evaluation.metrics import side_metrics
from mmkgc_cli.evaluation.ranker import rank
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.plugins import convert_error
from mmkgc_cli.runs.assembly import Prepared, prepare, replayed, valid_triples
from mmkgc_cli.runs.checkpointing import RunKeeper
from mmkgc_cli.runs.config import to_toml, values_of
from mmkgc_cli.runs.directory import RunDirectory, environment
from mmkgc_cli.runs.features import features_to_resume, read_features, recorded
from mmkgc_cli.runs.inspection import certainty_probe
from mmkgc_cli.runs.loggers import Loggers
from mmkgc_cli.runs.plugins import config_to_resume, recorded_plugins
from mmkgc_cli.runs.restore import graph_of
from mmkgc_cli.runs.sections import GraphConfig, RunConfig
from mmkgc_cli.state.atomic import write_json, write_text
from mmkgc_cli.state.checkpoints import Checkpoints
from mmkgc_cli.state.device import pick_device
from mmkgc_cli.state.memory import peak_mib, settled_objects
from mmkgc_cli.state.signals import StopRequest
from mmkgc_cli.state.trace import Trace, read_trace
from mmkgc_cli.training.loop import FINISHED, EpochReport, Outcome, Schedule, train
from mmkgc_cli.training.negative_entropy import Certainty


class Watcher(Protocol):
    """A display that is told how training goes."""

    def begin(self, graph: Graph, config: RunConfig, parameters: int, device: str) -> None:
        """Called once before the first step."""

    def step(self, epoch: int, done: int, total: int) -> None:
        """Called after each step."""

    def epoch(self, report: EpochReport) -> None:
        """Called after each epoch."""


@dataclasses.dataclass(frozen=True)
class Trained:
    """What came of a training."""

    config: RunConfig
    outcome: Outcome
    valid: dict[str, float]


def run_training(
    config: RunConfig,
    graph_folder: Path,
    run: RunDirectory,
    overwrite: bool,
    watcher: Watcher,
    loggers: Loggers | None = None,
) -> Trained:
    """Trains and fills a run directory; `loggers` are told what its trace is.

    Raises:
        MmkgcError: as the parts say; what is already saved stays whole.
        Interrupted: after SIGINT or SIGTERM, with a checkpoint to resume from.
    """
    run.require_free(overwrite)
    graph = load_graph(graph_folder)
    if not len(graph.valid):
        raise DataError(f"{graph_folder}: the graph has no valid triples to select on")
    about = GraphConfig(
        path=str(graph_folder.resolve()),
        name=graph.name,
        fingerprint=graph.fingerprint,
        order_id=graph.order_id,
    )
    config = config.model_copy(update={"graph": about, **recorded_plugins(config)})
    features = read_features(config, graph)
    prepared = prepare(config, graph, run.path, features.given)
    config = recorded(config, features, prepared.scorer)
    with run.locked():
        run.create(overwrite)
        write_text(run.config, to_toml(config))
        write_json(run.environment, environment())
        return _train(config, graph, prepared, run, watcher, loggers or Loggers(), None)


def resume_training(
    run: RunDirectory,
    graph_folder: Path | None,
    watcher: Watcher,
    epochs: int | None = None,
    loggers: Loggers | None = None,
    stores: Mapping[str, str] = MappingProxyType({}),
) -> Trained:
    """Goes on from the last checkpoint of a run, as if it had not been stopped.

    Args:
        run: that was killed, interrupted or ran into an error; without a checkpoint it starts over.
        graph_folder: where its graph is now; None takes the place it was trained from.
        watcher: is told how it goes.
        epochs: train for so many instead, also when the run was finished.
        loggers: are told what the trace is; each appends to what it has of the run.
        stores: where features of a modality are now, if not where they were.

    Raises:
        MmkgcError: as `run_training`; also when graph or features are not those it was trained on.
    """
    run.require()
    config = config_to_resume(run)
    graph = graph_of(run, config, graph_folder)
    if epochs is not None:
        training = config.training.model_copy(update={"epochs": epochs})
        config = config.model_copy(update={"training": training})
    config, features = features_to_resume(config, graph, stores)
    prepared = prepare(config, graph, run.path, features.given)
    with run.locked():
        found = Checkpoints(run.checkpoints, 1).latest()
        if found is None and _is_finished(run):
            raise DataError(
                f"{run.path}: is finished and has no checkpoints any more, so there is nothing to "
                "go on from; train into another --run"
            )
        done = found[1]["progress"]["epoch"] - 1 if found else 0
        if epochs is not None and epochs <= done:
            raise UsageError(
                f"{run.path}: has {done} epochs already; ask for more --epochs than that"
            )
        if epochs is not None:
            write_text(run.config, to_toml(config))
        if not run.environment.exists():  # it was killed just before it could write this
            write_json(run.environment, environment())
        state = found[1] if found else None
        return _train(config, graph, prepared, run, watcher, loggers or Loggers(), state)


def _is_finished(run: RunDirectory) -> bool:
    """Whether the trace ends as that of a training does which nobody stopped."""
    try:
        events = read_trace(run.trace)
    except DataError:
        return False
    last = events[-1] if events else {}
    return last.get("event") == "end" and not str(last.get("stopped")).startswith("signal")


def _train(
    config: RunConfig,
    graph: Graph,
    prepared: Prepared,
    run: RunDirectory,
    watcher: Watcher,
    loggers: Loggers,
    state: dict[str, Any] | None,
) -> Trained:
    scorer = prepared.scorer
    parameters = sum(p.numel() for p in scorer.parameters())
    device = pick_device(config.training.device)
    watcher.begin(graph, config, parameters, device.type)
    position, seconds = state["trace"] if state else (0, 0.0)
    settings = values_of(config)
    # Paths of this machine are no business of others.
    del settings["graph"]["path"]
    for modality in config.features.paths:
        del settings["features"][modality]
    next_epoch = state["progress"]["epoch"] if state else 1
    with (
        loggers.opened(run.path, settings, next_epoch),
        Trace(run.trace, position, seconds, loggers.record) as trace,
        StopRequest() as stop,
        settled_objects(),
    ):
        if state is None:
            path = {"path": "whole triples"} if scorer.scores_triples_only() else {}
            trace.write(
                "start", graph=graph.name, scorer=config.scorer, parameters=parameters, **path
            )
        else:
            trace.write("resume", threads=torch.get_num_threads(), device=device.type)
        keeper = RunKeeper(run, config, graph, scorer, trace)
        try:
            outcome = _drive(config, graph, prepared, keeper, watcher, stop, state)
        except Exception as error:
            if known := convert_error(error):
                with contextlib.suppress(DataError):  # the disk may be what failed
                    trace.write("error", message=str(known))
            raise
        if not outcome.best_epoch and parameters:
            keeper.weights(outcome.epochs)  # nothing was validated yet: better these than none
        trace.write(
            "end",
            stopped=outcome.stopped,
            epochs=outcome.epochs,
            best_epoch=outcome.best_epoch,
            valid_mrr=keeper.valid.get("mrr"),
        )
        best = (
            f"the best weights so far (epoch {outcome.best_epoch}, valid MRR "
            f"{100 * outcome.best_mrr:.2f} %)"
            if outcome.best_epoch
            else "weights that were not validated yet"
        )
        stop.raise_if_asked(
            f"stopped by a signal in epoch {outcome.epochs + 1}; {run.weights} holds {best}; go on "
            f"with: mmkgc train --resume {run.path}"
        )
    return Trained(config, outcome, keeper.valid)


def _weighs_negatives(config: RunConfig) -> bool:
    settings = config.training
    return settings.loss == "entropy-weighted" and settings.candidates == "sampled"


def _drive(
    config: RunConfig,
    graph: Graph,
    prepared: Prepared,
    keeper: RunKeeper,
    watcher: Watcher,
    stop: StopRequest,
    state: dict[str, Any] | None,
) -> Outcome:
    settings = config.training
    device = pick_device(settings.device)
    scorer, program = prepared.scorer, prepared.program
    valid = valid_triples(config, graph)
    sure = certainty_probe(config, graph, scorer, device) if _weighs_negatives(config) else None
    certainty: list[Certainty] = []  # of the last validation

    def validate() -> dict[str, float]:
        scorer.eval()
        with keeper.averaged():
            certainty[:] = [sure(scorer)] if sure else []
            both = side_metrics(rank(scorer, valid, prepared.known))["both"]["realistic"]
        scorer.train()
        return dict(both)

    class Reports:
        def step(self, epoch: int, done: int, total: int) -> None:
            watcher.step(epoch, done, total)

        def epoch(self, report: EpochReport) -> None:
            keeper.trace.write(
                "epoch",
                **dataclasses.asdict(report),
                rate=keeper.rate(),
                memory_mib=peak_mib(device),
            )
            for found in certainty if report.valid is not None else ():
                keeper.trace.write("certainty", epoch=report.epoch, **dataclasses.asdict(found))
            watcher.epoch(report)

    if program is None:
        metrics = validate()
        keeper.best(0, metrics)
        return Outcome(0, 0, metrics["mrr"], "nothing to train")
    keeper.program = program
    schedule = Schedule(settings.epochs, settings.eval_every, settings.patience)
    progress = keeper.restore(state) if state else None
    if progress and progress.epoch <= settings.epochs and progress.stopped == FINISHED:
        progress.stopped = ""  # more epochs were asked for
    steps = replayed(config, program, keeper.tell_of_graph)
    return train(steps, schedule, len(graph.train), validate, keeper, Reports(), stop, progress)
