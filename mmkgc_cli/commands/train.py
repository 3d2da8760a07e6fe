"""``mmkgc train``: train a scorer on a prepared graph."""

from __future__ import annotations

import dataclasses
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from mmkgc_cli.commands._features_flag import FeaturesOption, stores
from mmkgc_cli.commands._help import examples
from mmkgc_cli.commands._plugins_flag import TrustPluginsFlag
from mmkgc_cli.commands._shell import Device, JsonFlag, log, out, print_json, say
from mmkgc_cli.errors import UsageError
from mmkgc_cli.training.loop import Callback

if TYPE_CHECKING:
    from rich.progress import Progress

    from mmkgc_cli.kg.graph import Graph
    from mmkgc_cli.runs.directory import RunDirectory
    from mmkgc_cli.runs.estimate import Estimate
    from mmkgc_cli.runs.training import Trained
    from mmkgc_cli.training.loop import EpochReport, RunInfo


# Without a terminal, minimum time between lines for epochs without validation.
SECONDS_BETWEEN_LINES = 5.0


class Fill(StrEnum):
    """Values that replace missing vectors."""

    zero = "zero"
    mean = "mean"
    random = "random"
    one = "one"


class LogName(StrEnum):
    """Tools that can be logged to."""

    tensorboard = "tensorboard"
    wandb = "wandb"


EXAMPLES = examples(
    "mmkgc train rotate --graph graphs/elements --config recipes/rotate-elements.toml",
    "mmkgc train --resume runs/elements-rotate",
)


def train(
    scorer: Annotated[
        str | None, typer.Argument(help="Name of a scorer (see mmkgc scorers list).")
    ] = None,
    *,
    graph: Annotated[Path | None, typer.Option(help="Directory of a prepared graph.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run directory. [default: runs/GRAPH-SCORER]")
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="TOML file with settings; flags override it.")
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the train triples (training.epochs).")
    ] = None,
    batch_size: Annotated[
        int | None, typer.Option(help="Positives per step (training.batch_size).")
    ] = None,
    negatives: Annotated[
        int | None, typer.Option(help="Negatives per positive (negatives.count).")
    ] = None,
    lr: Annotated[float | None, typer.Option(help="Learning rate (optimizer.lr).")] = None,
    seed: Annotated[int | None, typer.Option(help="Random seed (training.seed).")] = None,
    dim: Annotated[int | None, typer.Option(help="Embedding width (model.dim).")] = None,
    device: Annotated[
        Device | None, typer.Option(help="Device to train on (training.device).")
    ] = None,
    features: FeaturesOption = None,
    fill: Annotated[
        Fill | None, typer.Option(help="Replacement of missing vectors (features.fill).")
    ] = None,
    freeze_features: Annotated[
        bool,
        typer.Option(
            "--freeze-features", help="Do not train feature vectors (model.freeze_features)."
        ),
    ] = False,
    allow_other_train: Annotated[
        bool,
        typer.Option(
            "--allow-other-train", help="Accept vectors that were fitted on another train split."
        ),
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any setting; repeatable."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing run.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(help="Resume this run from its last checkpoint; --epochs extends it."),
    ] = None,
    log_to: Annotated[
        list[LogName] | None,
        typer.Option("--log", help="Also log epochs to this tool; repeatable."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only estimate time, memory and disk."),
    ] = False,
    trust_plugins: TrustPluginsFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Train SCORER and write a run directory.

    The weights with the best valid MRR are kept.
    """
    from mmkgc_cli.runs.config import resolve_plugins
    from mmkgc_cli.runs.directory import RunDirectory
    from mmkgc_cli.runs.loggers import Loggers
    from mmkgc_cli.runs.plugins import names_taken
    from mmkgc_cli.runs.toml_file import NO_FILE, read_toml

    loggers = Loggers([name.value for name in dict.fromkeys(log_to or [])], say)
    if resume is not None:
        settings = (
            scorer, run, config, batch_size, negatives, lr, seed, dim, device, fill, overrides
        )  # fmt: skip
        flags_of_new_runs = overwrite, dry_run, freeze_features, allow_other_train
        if any(flags_of_new_runs) or any(value is not None for value in settings):
            raise UsageError(
                "--resume takes all settings from the run",
                fix="remove all flags except --epochs, --graph, --features, --log and --json",
            )
        from mmkgc_cli.runs.training import resume_training

        directory = RunDirectory(resume)
        with TrainingDisplay() as display:
            resumed = resume_training(
                directory, graph, [display, loggers], epochs=epochs, stores=stores(features)
            )
            report(directory, resumed, as_json)
        return
    if scorer is None or graph is None:
        missing = "SCORER" if scorer is None else "--graph"
        raise UsageError(
            f"{missing} is missing",
            fix="run mmkgc train SCORER --graph DIR, or mmkgc train --resume RUN",
        )
    flags = {
        ("training", "epochs"): epochs,
        ("training", "batch_size"): batch_size,
        ("negatives", "count"): negatives,
        ("optimizer", "lr"): lr,
        ("training", "seed"): seed,
        ("training", "device"): None if device is None else device.value,
        ("model", "dim"): dim,
        ("model", "freeze_features"): freeze_features or None,
        ("features", "allow_other_train"): allow_other_train or None,
        ("features", "fill"): None if fill is None else fill.value,
        **{("features", modality): path for modality, path in stores(features).items()},
    }
    file = read_toml(config) if config else NO_FILE
    resolved = resolve_plugins(
        scorer,
        file=file,
        flags={key: value for key, value in flags.items() if value is not None},
        overrides=overrides or [],
        warn=lambda line: say(f"warning: {line}"),
    )
    sampler = resolved.negatives.sampler if resolved.negatives else ""
    for problem in names_taken(scorer, sampler):
        say(f"warning: {problem}")
    directory = RunDirectory(run or Path("runs") / f"{graph.resolve().name}-{scorer}")
    if dry_run:
        from mmkgc_cli.kg.storage import load_graph
        from mmkgc_cli.runs.estimate import estimate

        say_estimate(estimate(resolved, load_graph(graph), directory.path), as_json)
        return
    from mmkgc_cli.runs.training import run_training  # torch: after the settings are checked

    with TrainingDisplay() as display:
        trained = run_training(resolved, graph, directory, [display, loggers], overwrite=overwrite)
        report(directory, trained, as_json)


def say_estimate(estimated: Estimate, as_json: bool) -> None:
    """Prints the estimated memory, disk space and time of a training."""
    if as_json:
        print_json(dataclasses.asdict(estimated))
        return
    out.print(f"parameters   {estimated.parameters:,}")
    out.print(f"memory       {estimated.memory_mib:,.0f} MiB")
    out.print(
        f"disk         {estimated.disk_mib:,.0f} MiB of {estimated.free_disk_mib:,.0f} MiB free"
    )
    out.print(f"epoch        {duration(estimated.seconds_per_epoch)}")
    out.print(f"validation   {duration(estimated.seconds_per_validation)}")
    out.print(f"total        {duration(estimated.seconds)} without early stopping")


def duration(seconds: float) -> str:
    """Text for a duration: seconds, minutes and seconds, or hours and minutes."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return (
        f"{minutes} min {round(seconds) % 60} s"
        if minutes < 100
        else (f"{minutes // 60} h {minutes % 60} min")
    )


def report(directory: RunDirectory, trained: Trained, as_json: bool) -> None:
    """Prints the outcome of a training."""
    outcome = trained.outcome
    if as_json:
        print_json(
            {
                "run": str(directory.path),
                "scorer": trained.config.scorer,
                "epochs": outcome.epochs,
                "best_epoch": outcome.best_epoch,
                "stopped": outcome.stopped,
                "valid": trained.valid,
            }
        )
        return
    out.print(
        f"{directory.path}: {outcome.stopped} after {outcome.epochs} epochs; best valid MRR "
        f"{100 * outcome.best_mrr:.2f} % at epoch {outcome.best_epoch}",
    )
    say(f"next: mmkgc eval {directory.path}")


def warn_of_contamination(graph: Graph) -> None:
    """Warns before the training if triples of the graph are duplicated or in several splits."""
    from mmkgc_cli.kg.audit import problems
    from mmkgc_cli.kg.datasets import registered_variant

    contamination = problems(graph.duplicates(), graph.leaks())
    if not contamination:
        return
    variant = registered_variant(graph.name)
    say(
        f"warning: {graph.name} is not clean: {'; '.join(contamination)}; results will record it"
        + (f" (the clean variant is {variant})" if variant else "")
    )


def warn_of_slow_scoring(name: str) -> None:
    """Warns if a scorer defines only `score`, which makes training and ranking slow."""
    from mmkgc_cli.scoring import load_scorer

    if load_scorer(name).scores_triples_only():
        say(
            f"warning: {name} defines only score(), so triples are scored one by one; define "
            "query() and candidates() to train and rank faster"
        )


class TrainingDisplay(Callback):
    """Progress on stderr: a bar on a terminal, otherwise one line per epoch."""

    def __init__(self) -> None:
        self._epochs = 0
        self._validation = ""
        self._line_time = 0.0
        self._progress: Progress | None = None
        self._task: Any = None
        if log.is_terminal:
            from rich.progress import (
                BarColumn,
                MofNCompleteColumn,
                Progress,
                TextColumn,
                TimeRemainingColumn,
            )

            self._progress = Progress(
                TextColumn("epoch"),
                BarColumn(),
                MofNCompleteColumn(),
                TextColumn("{task.fields[note]}"),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=log.console,
                transient=True,
            )

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def start(self, info: RunInfo) -> None:
        """Prints the scorer, the graph and warnings, and shows the bar."""
        say(
            f"{info.name} on {info.graph.name}: {len(info.graph.train):,} train triples, "
            f"{info.parameters:,} parameters, {info.device}"
        )
        warn_of_contamination(info.graph)
        warn_of_slow_scoring(info.name)
        self.show_bar(info)

    def show_bar(self, info: RunInfo) -> None:
        """Shows the bar, unless there is nothing to train."""
        self._epochs = info.epochs
        if self._progress and info.parameters:
            self._progress.start()
            self._task = self._progress.add_task("", total=info.epochs, note="")

    def step(self, epoch: int, done: int, total: int) -> None:
        """Updates the bar."""
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=epoch - 1 + done / total)

    def epoch(self, report: EpochReport) -> None:
        """Shows the loss, the throughput and the validation, if there was one."""
        validation = ""
        if report.valid:
            best = " (best)" if report.improved else ""
            validation = f"valid MRR {100 * report.valid['mrr']:.2f} %{best}"
        self.show(report, "triples", validation)

    def show(self, report: EpochReport, unit: str, validation: str) -> None:
        """Updates the bar; prints a line after a validation and every few seconds."""
        note = f"loss {report.losses['loss']:.4f}, {report.triples_per_second:,.0f} {unit}/s"
        if validation:
            self._validation = f", {validation}"
        if self._progress and self._task is not None:
            note_of_bar = note + self._validation
            self._progress.update(self._task, completed=report.epoch, note=note_of_bar)
        now = time.monotonic()
        due = now - self._line_time > SECONDS_BETWEEN_LINES and not self._progress
        if validation or due:
            self._line_time = now
            suffix = self._validation if validation else ""
            say(f"epoch {report.epoch}/{self._epochs}: {note}{suffix}")
