"""``mmkgc train``: trains a scorer and fills a run directory."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.evaluation.metrics import side_metrics
from mmkgc_cli.evaluation.ranker import rank
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.runs.assembly import Prepared, prepare, valid_triples, with_cuda_graph
from mmkgc_cli.runs.config import to_toml, values_of
from mmkgc_cli.runs.directory import RunDirectory, environment
from mmkgc_cli.runs.driver import Job, drive
from mmkgc_cli.runs.features import features_to_resume, read_features, with_store_records
from mmkgc_cli.runs.inspection import entropy_probe
from mmkgc_cli.runs.plugins import (
    config_to_resume,
    keep_plugin_versions,
    with_plugin_records,
)
from mmkgc_cli.runs.restore import load_same_graph
from mmkgc_cli.runs.sections import GraphConfig, RunConfig
from mmkgc_cli.state.atomic import write_json, write_text
from mmkgc_cli.state.checkpoints import Checkpoints
from mmkgc_cli.state.device import pick_device
from mmkgc_cli.state.memory import peak_mib
from mmkgc_cli.state.metadata import read_metadata
from mmkgc_cli.state.tensors import kept_tensors
from mmkgc_cli.state.trace import read_trace
from mmkgc_cli.state.weights import save_weights
from mmkgc_cli.training.loop import Callback, EpochReport, Outcome, RunInfo, Schedule, StepProgram
from mmkgc_cli.training.negative_entropy import NegativeEntropy
from mmkgc_cli.training.program import ScorerProgram
from mmkgc_cli.training.settings import EntropyWeightedLoss


@dataclasses.dataclass(frozen=True)
class Trained:
    """The configuration, outcome and best validation metrics of a training."""

    config: RunConfig
    outcome: Outcome
    valid: dict[str, float]


def run_training(
    config: RunConfig,
    graph_folder: Path,
    run: RunDirectory,
    callbacks: Sequence[Callback] = (),
    *,
    overwrite: bool = False,
) -> Trained:
    """Trains a scorer and fills a run directory.

    Args:
        config: all settings.
        graph_folder: a prepared graph.
        run: where to write.
        callbacks: a display, loggers.
        overwrite: replace an existing run.

    Raises:
        MmkgcError: when data or settings are invalid, or training fails; saved files stay whole.
        Interrupted: after SIGINT or SIGTERM, with a checkpoint to resume from.
    """
    run.require_free(overwrite=overwrite)
    graph = load_graph(graph_folder)
    if not len(graph.valid):
        raise DataError(
            f"{graph_folder}: the graph has no valid triples, which select the weights",
            fix="add a valid split to its source and prepare it again with `mmkgc prepare`",
        )
    section = GraphConfig(
        path=str(graph_folder.resolve()),
        name=graph.name,
        fingerprint=graph.fingerprint,
        order_id=graph.order_id,
    )
    config = with_plugin_records(dataclasses.replace(config, graph=section))
    keep_plugin_versions(config)
    features = read_features(config, graph)
    prepared = prepare(config, graph, run.path, features.features)
    config = with_store_records(config, features, prepared.scorer)
    with run.locked():
        run.create(overwrite=overwrite)
        write_text(run.config, to_toml(config))
        write_json(run.environment, environment())
        return _train(config, graph, prepared, run, callbacks, None)


def resume_training(
    run: RunDirectory,
    graph_folder: Path | None,
    callbacks: Sequence[Callback] = (),
    *,
    epochs: int | None = None,
    stores: Mapping[str, str] = MappingProxyType({}),
) -> Trained:
    """Resumes a training from its last checkpoint, or from the start if it has none.

    The result is identical to that of an uninterrupted training.

    Args:
        run: a run that was killed, interrupted or failed.
        graph_folder: the graph, if it was moved; None uses the recorded folder.
        callbacks: a display, loggers; each logger appends to its log of the run.
        epochs: the new number of epochs, also for a finished run.
        stores: feature stores by modality, if they were moved.

    Raises:
        MmkgcError: as `run_training`; also when graph or features are not those of the run.
    """
    run.require()
    config = config_to_resume(run)
    graph = load_same_graph(run, config.graph, graph_folder)
    if epochs is not None:
        training = config.training.model_copy(update={"epochs": epochs})
        config = dataclasses.replace(config, training=training)
    config, features = features_to_resume(config, graph, stores)
    prepared = prepare(config, graph, run.path, features.features)
    with run.locked():
        latest = Checkpoints(run.checkpoints, 1).latest()
        state = latest[1] if latest else None
        if state is None and _is_finished(run):
            raise DataError(
                f"{run.path}: the run is finished and its checkpoints were removed",
                fix="train into another run directory with --run",
            )
        done = state["progress"]["epoch"] - 1 if state else 0
        if epochs is not None and epochs <= done:
            raise UsageError(
                f"--epochs {epochs}: {run.path} has {done} epochs already",
                fix=f"pass --epochs with at least {done + 1}",
            )
        if epochs is not None:
            write_text(run.config, to_toml(config))
        if not run.environment.exists():  # killed before this file was written
            write_json(run.environment, environment())
        return _train(config, graph, prepared, run, callbacks, state)


def _is_finished(run: RunDirectory) -> bool:
    """Whether the last event of the trace is the end of an uninterrupted training."""
    try:
        events = read_trace(run.trace)
    except DataError:
        return False
    last = events[-1] if events else {}
    return last.get("event") == "end" and not str(last.get("stopped")).startswith("signal")


class TrainingJob(Job[ScorerProgram]):
    """The training of a scorer, which keeps the weights with the best valid MRR."""

    resume_command = "mmkgc train --resume"

    def __init__(
        self,
        config: RunConfig,
        graph: Graph,
        prepared: Prepared,
        run: RunDirectory,
        *,
        first_epoch: int,
    ) -> None:
        training = config.training
        self.config = config
        self.graph = graph
        self.run = run
        self.scorer = prepared.scorer
        self.program = prepared.program
        self.schedule = Schedule(
            training.epochs, config.validation.every, config.validation.patience
        )
        self.rows = len(graph.train)
        self.device = pick_device(training.device)
        self.checkpoints = config.checkpoints
        self.validate = self._validate
        self.valid = {}
        self.info = RunInfo(
            folder=run.path,
            graph=graph,
            name=config.scorer,
            parameters=sum(p.numel() for p in self.scorer.parameters()),
            device=self.device.type,
            epochs=training.epochs,
            first_epoch=first_epoch,
            settings=_settings_to_log(config),
        )
        self._known = prepared.known
        self._valid_triples = valid_triples(config, graph)
        weighted = isinstance(config.loss, EntropyWeightedLoss)
        self._probe = entropy_probe(config, graph, self.scorer, self.device) if weighted else None
        self._certainty: NegativeEntropy | None = None  # of negatives, in the last validation

    def steps(self) -> StepProgram:
        """The program with its steps in a CUDA graph if possible; the trace records it."""
        assert self.program is not None

        def record(reason: str | None) -> None:
            self.trace.write("cuda_graph", captured=reason is None, reason=reason)

        return with_cuda_graph(self.config, self.program, record)

    def _averaged(self) -> contextlib.AbstractContextManager[None]:
        """A context in which the scorer has the weights to rank and to save."""
        return self.program.optimization.averaged() if self.program else contextlib.nullcontext()

    def _validate(self) -> dict[str, float]:
        """Realistic valid metrics over both sides."""
        self.scorer.eval()
        with self._averaged():
            if self._probe is not None:
                self._certainty = self._probe(self.scorer)
            ranks = rank(self.scorer, self._valid_triples, self._known)
        self.scorer.train()
        return dict(side_metrics(ranks)["both"]["realistic"])

    def _save_weights(self, epoch: int) -> None:
        metadata = {
            "scorer": self.config.scorer,
            "epoch": str(epoch),
            "fingerprint": self.graph.fingerprint,
            "order_id": self.graph.order_id,
        }
        with self._averaged():
            save_weights(self.run.weights, kept_tensors(self.scorer), metadata)

    def start(self, info: RunInfo) -> None:
        """Writes ``start`` to the trace of a new run."""
        if not self.trace.resumed:
            path = {"path": "whole triples"} if self.scorer.scores_triples_only() else {}
            self.trace.write(
                "start",
                graph=self.graph.name,
                scorer=self.config.scorer,
                parameters=info.parameters,
                **path,
            )

    def best(self, epoch: int, metrics: dict[str, float]) -> None:
        """Saves the weights."""
        self.valid = dict(metrics)
        self._save_weights(epoch)

    def epoch(self, report: EpochReport) -> None:
        """Writes ``epoch``, and ``certainty`` after a validation that measured negatives."""
        assert self.program is not None
        self.trace.write(
            "epoch",
            **dataclasses.asdict(report),
            rate=self.program.optimization.rate,
            memory_mib=peak_mib(self.device),
        )
        if report.valid is not None and self._certainty is not None:
            certainty = dataclasses.asdict(self._certainty)
            self.trace.write("certainty", epoch=report.epoch, **certainty)

    def end(self, outcome: Outcome) -> None:
        """Saves the last weights if none were validated, and writes ``end``.

        A killed run may have saved weights of a later epoch than that of its last checkpoint. If a
        signal interrupts it again before it has come as far, it keeps those weights.
        """
        if not outcome.best_epoch and self.program is not None and not self._is_behind(outcome):
            self._save_weights(outcome.epochs)
        self.trace.write(
            "end",
            stopped=outcome.stopped,
            epochs=outcome.epochs,
            best_epoch=outcome.best_epoch,
            valid_mrr=self.valid.get("mrr"),
        )

    def _is_behind(self, outcome: Outcome) -> bool:
        """Whether an interrupted training has saved weights of a later epoch before."""
        return outcome.interrupted and self._saved_epoch() > outcome.epochs

    def _saved_epoch(self) -> int:
        """The epoch of the weights in the run directory; -1 without weights."""
        try:
            return int(read_metadata(self.run.weights)["epoch"])
        except (DataError, KeyError, ValueError):
            return -1

    def weights_note(self, outcome: Outcome) -> str:
        """The epoch and the valid MRR of the saved weights."""
        if not outcome.best_epoch and self._is_behind(outcome):
            return f"{self.run.weights.name} keeps the weights of epoch {self._saved_epoch()}. "
        if not outcome.best_epoch:
            return f"{self.run.weights.name} holds weights that were not validated. "
        return (
            f"{self.run.weights.name} holds the best weights so far (epoch {outcome.best_epoch}, "
            f"valid MRR {100 * outcome.best_mrr:.2f} %). "
        )


def _settings_to_log(config: RunConfig) -> dict[str, Any]:
    """The settings without paths of this machine."""
    settings = values_of(config)
    del settings["graph"]["path"]
    for modality in config.features.paths:
        del settings["features"][modality]
    return settings


def _train(
    config: RunConfig,
    graph: Graph,
    prepared: Prepared,
    run: RunDirectory,
    callbacks: Sequence[Callback],
    state: Mapping[str, Any] | None,
) -> Trained:
    first_epoch = state["progress"]["epoch"] if state else 1
    job = TrainingJob(config, graph, prepared, run, first_epoch=first_epoch)
    outcome = drive(job, callbacks, state)
    return Trained(config, outcome, job.valid)
