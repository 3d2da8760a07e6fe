"""``mmkgc train``: train a scorer on a prepared graph."""

from __future__ import annotations

import dataclasses
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Self

import typer

from mmkgc_cli.commands._features_flag import FeaturesOption, stores
from mmkgc_cli.commands._shell import Device, JsonFlag, log, out, print_json, say
from mmkgc_cli.errors import UsageError

if TYPE_CHECKING:
    from rich.progress import Progress

    from mmkgc_cli.kg.graph import Graph
    from mmkgc_cli.runs.directory import RunDirectory
    from mmkgc_cli.runs.estimate import Estimate
    from mmkgc_cli.runs.sections import RunConfig
    from mmkgc_cli.runs.training import Trained
    from mmkgc_cli.training.loop import EpochReport


# Without a terminal, epochs that are not validated show at most this often.
SECONDS_BETWEEN_LINES = 5.0


class Fill(StrEnum):
    """What stands for entities without a vector."""

    zero = "zero"
    mean = "mean"
    random = "random"
    one = "one"


class LogName(StrEnum):
    """Tools that can be logged to."""

    tensorboard = "tensorboard"
    wandb = "wandb"


def train(
    scorer: Annotated[
        str | None, typer.Argument(help="Which scorer; mmkgc scorers list shows them.")
    ] = None,
    graph: Annotated[Path | None, typer.Option(help="Folder of a prepared graph.")] = None,
    run: Annotated[
        Path | None, typer.Option(help="Run directory; runs/GRAPH-SCORER when left out.")
    ] = None,
    config: Annotated[
        Path | None,
        typer.Option(
            help="TOML with [model], [training], [sampler] and [features]; flags win over it."
        ),
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="training.epochs")] = None,
    batch_size: Annotated[int | None, typer.Option(help="training.batch_size")] = None,
    negatives: Annotated[int | None, typer.Option(help="training.negatives")] = None,
    lr: Annotated[float | None, typer.Option(help="training.lr")] = None,
    seed: Annotated[int | None, typer.Option(help="training.seed")] = None,
    dim: Annotated[int | None, typer.Option(help="model.dim")] = None,
    device: Annotated[Device | None, typer.Option(help="training.device")] = None,
    features: FeaturesOption = None,
    fill: Annotated[Fill | None, typer.Option(help="features.fill")] = None,
    freeze_features: Annotated[
        bool,
        typer.Option("--freeze-features", help="model.freeze_features: do not train vectors."),
    ] = False,
    allow_other_train: Annotated[
        bool,
        typer.Option("--allow-other-train", help="Take vectors fitted on another train split."),
    ] = False,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any setting; repeat as needed."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a run that is in the directory.")
    ] = False,
    resume: Annotated[
        Path | None,
        typer.Option(
            help="Go on with this run, as if it had not been stopped; with --epochs, for so many."
        ),
    ] = None,
    log_to: Annotated[
        list[LogName] | None,
        typer.Option("--log", help="Show epochs in this tool as well; repeat for both."),
    ] = None,
    dry_run: Annotated[
        bool,
        typer.Option("--dry-run", help="Only measure a few steps and say what it would take."),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Train SCORER, keep the weights that rank valid best, and leave a run directory."""
    from mmkgc_cli.runs.config import resolve
    from mmkgc_cli.runs.directory import RunDirectory
    from mmkgc_cli.runs.loggers import Loggers
    from mmkgc_cli.runs.plugins import names_taken
    from mmkgc_cli.runs.toml_file import NO_FILE, read_toml
    from mmkgc_cli.scoring import load_scorer

    loggers = Loggers([name.value for name in dict.fromkeys(log_to or [])], say)
    if resume is not None:
        settings = (
            scorer, run, config, batch_size, negatives, lr, seed, dim, device, fill, overrides
        )  # fmt: skip
        flags_of_new_runs = overwrite, dry_run, freeze_features, allow_other_train
        if any(flags_of_new_runs) or any(value is not None for value in settings):
            raise UsageError(
                "--resume takes its settings from the run; only --epochs, --graph, --features and "
                "--log go with it"
            )
        from mmkgc_cli.runs.training import resume_training

        directory = RunDirectory(resume)
        with Display() as display:
            resumed = resume_training(directory, graph, display, epochs, loggers, stores(features))
            report(directory, resumed, as_json)
        return
    if scorer is None or graph is None:
        raise UsageError("say which SCORER on which --graph, or --resume RUN")
    flags = {
        ("training", "epochs"): epochs,
        ("training", "batch_size"): batch_size,
        ("training", "negatives"): negatives,
        ("training", "lr"): lr,
        ("training", "seed"): seed,
        ("training", "device"): None if device is None else device.value,
        ("model", "dim"): dim,
        ("model", "freeze_features"): freeze_features or None,
        ("features", "allow_other_train"): allow_other_train or None,
        ("features", "fill"): None if fill is None else fill.value,
        **{("features", modality): path for modality, path in stores(features).items()},
    }
    file = read_toml(config) if config else NO_FILE
    resolved = resolve(
        scorer,
        load_scorer(scorer).Config,
        file.values,
        file.name,
        {key: value for key, value in flags.items() if value is not None},
        overrides or [],
        lines=file.lines,
    )
    for problem in names_taken(scorer, resolved.training.sampler) + resolved.training.unused():
        say(f"warning: {problem}")
    directory = RunDirectory(run or Path("runs") / f"{graph.resolve().name}-{scorer}")
    if dry_run:
        from mmkgc_cli.kg.storage import load_graph
        from mmkgc_cli.runs.estimate import estimate

        say_estimate(estimate(resolved, load_graph(graph), directory.path), as_json)
        return
    from mmkgc_cli.runs.training import run_training  # torch: after the settings are checked

    with Display() as display:
        trained = run_training(resolved, graph, directory, overwrite, display, loggers)
        report(directory, trained, as_json)


def say_estimate(found: Estimate, as_json: bool) -> None:
    """Says what a training would take."""
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    out.print(f"parameters   {found.parameters:,}")
    out.print(f"memory       {found.memory_mib:,.0f} MiB")
    out.print(f"disk         {found.disk_mib:,.0f} MiB of {found.free_disk_mib:,.0f} MiB free")
    out.print(f"an epoch     {duration(found.seconds_per_epoch)}")
    out.print(f"a validation {duration(found.seconds_per_validation)}")
    out.print(f"in all       {duration(found.seconds)}, if it does not stop early")


def duration(seconds: float) -> str:
    """Seconds, minutes and seconds, or hours and minutes."""
    if seconds < 100:
        return f"{seconds:.1f} s"
    minutes = round(seconds) // 60
    return (
        f"{minutes} min {round(seconds) % 60} s"
        if minutes < 100
        else (f"{minutes // 60} h {minutes % 60} min")
    )


def report(directory: RunDirectory, trained: Trained, as_json: bool) -> None:
    """Says how a training ended."""
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
    """Says what results on this graph do not mean, before time is spent on them."""
    from mmkgc_cli.kg.audit import problems
    from mmkgc_cli.kg.datasets import registered_variant

    found = problems(graph.duplicates(), graph.leaks())
    if not found:
        return
    variant = registered_variant(graph.name)
    say(
        f"warning: {graph.name} is not clean: {'; '.join(found)}; results will say so"
        + (f" (the clean variant is {variant})" if variant else "")
    )


def warn_of_the_generic_path(name: str) -> None:
    """Says that a scorer defines no queries, since that costs most of the speed."""
    from mmkgc_cli.scoring import load_scorer

    if load_scorer(name).scores_triples_only():
        say(
            f"warning: {name} defines score alone, so every triple is scored by itself; query and "
            "candidates would make training and ranking much faster"
        )


class Display:
    """Progress on stderr: a live bar on a terminal, a line an epoch elsewhere."""

    def __init__(self) -> None:
        self._epochs = 0
        self._valid = ""
        self._said_at = 0.0
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

    def begin(self, graph: Graph, config: RunConfig, parameters: int, device: str) -> None:
        """Says what is about to be trained."""
        say(
            f"{config.scorer} on {graph.name}: {len(graph.train):,} train triples, "
            f"{parameters:,} parameters, {device}"
        )
        warn_of_contamination(graph)
        warn_of_the_generic_path(config.scorer)
        self.start(config.training.epochs, bool(parameters))

    def start(self, epochs: int, steps: bool = True) -> None:
        """Shows the bar, where there are steps to show."""
        self._epochs = epochs
        if self._progress and steps:
            self._progress.start()
            self._task = self._progress.add_task("", total=epochs, note="")

    def step(self, epoch: int, done: int, total: int) -> None:
        """Moves the bar."""
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=epoch - 1 + done / total)

    def epoch(self, report: EpochReport) -> None:
        """Shows loss, throughput and, where there was one, the validation."""
        valid = ""
        if report.valid:
            best = " (best)" if report.improved else ""
            valid = f"valid MRR {100 * report.valid['mrr']:.2f} %{best}"
        self.show(report, "triples", valid)

    def show(self, report: EpochReport, items: str, valid: str) -> None:
        """Moves the bar, and says how the epoch went if somebody may want to know now."""
        note = f"loss {report.losses['loss']:.4f}, {report.triples_per_second:,.0f} {items}/s"
        if valid:
            self._valid = f", {valid}"
        if self._progress and self._task is not None:
            self._progress.update(self._task, completed=report.epoch, note=note + self._valid)
        now = time.monotonic()
        due = now - self._said_at > SECONDS_BETWEEN_LINES and not self._progress
        if valid or due:
            self._said_at = now
            say(f"epoch {report.epoch}/{self._epochs}: {note}{self._valid if valid else ''}")
