"""``mmkgc complete``: generates missing vectors, and measures their quality."""

from __future__ import annotations

import contextlib
import json
from enum import StrEnum
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkgc_cli.commands._help import examples
from mmkgc_cli.commands._shell import Device, JsonFlag, out, print_json, printable, say, table
from mmkgc_cli.commands.features import Pattern
from mmkgc_cli.commands.train import TrainingDisplay
from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from mmkgc_cli.runs.completion_config import CompletionConfig
    from mmkgc_cli.training.loop import EpochReport, RunInfo


# Parameters that are allowed with --resume.
WITH_RESUME = {"resume", "graph_folder", "as_json"}


class Variant(StrEnum):
    """Entities that get generated vectors."""

    gen = "gen"
    all_gen = "all-gen"


class Preset(StrEnum):
    """Presets of MACO, which `--set` overrides."""

    paper = "paper"
    released = "released"


EXAMPLES = examples(
    "mmkgc complete image --graph graphs/elements --strategy auto",
    "mmkgc complete image --graph graphs/elements --strategy all --missing-rate 0.4",
)


def complete(
    context: typer.Context,
    modality: Annotated[
        str | None, typer.Argument(help="Modality to complete, such as image or text.")
    ] = None,
    graph_folder: Annotated[
        Path | None, typer.Option("--graph", help="Directory of a prepared graph.")
    ] = None,
    *,
    features: Annotated[
        Path | None,
        typer.Option(help="Feature store [default: GRAPH/features/MODALITY.h5]."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="Strategy: random, one, zero, mean, neighbours, propagation, ridge, kernel, maco "
            "(trained), auto (default: the best of mean to kernel on a held-out tenth), or all "
            "(measures every strategy except maco and writes no store)."
        ),
    ] = None,
    variant: Annotated[
        Variant,
        typer.Option(help="Generate vectors for entities without one (gen), or for all (all-gen)."),
    ] = Variant.gen,
    missing_rate: Annotated[
        float | None,
        typer.Option(help="Hide this share of the observed vectors and measure on them."),
    ] = None,
    mask_seed: Annotated[int, typer.Option(min=0, help="Random seed of the hidden vectors.")] = 0,
    pattern: Annotated[
        Pattern, typer.Option(help="Which entities are masked: at random, by degree, by relation.")
    ] = Pattern.random,
    seed: Annotated[
        int, typer.Option(min=0, help="Random seed for sampling and for the held-out split.")
    ] = 0,
    iterations: Annotated[int, typer.Option(min=1, help="Number of propagation iterations.")] = 40,
    allow_other_train: Annotated[
        bool,
        typer.Option(
            "--allow-other-train",
            help="Accept a store that depends on another train split.",
        ),
    ] = False,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Store to write, with measures beside it as .json "
            "[default: GRAPH/features/MODALITY.completed-STRATEGY.h5].",
        ),
    ] = None,
    preset: Annotated[
        Preset | None,
        typer.Option(help="Settings of maco: from the paper, or from its released code."),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the entities (maco.epochs).")
    ] = None,
    device: Annotated[
        Device | None, typer.Option(help="Device to train on (training.device).")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option(
            "--set",
            metavar="SECTION.KEY=VALUE",
            help="Set maco.KEY, training.KEY, validation.KEY or checkpoints.KEY.",
        ),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run directory of maco [default: runs/GRAPH-MODALITY-maco]."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Resume this run of maco from its last checkpoint."),
    ] = None,
    overwrite: Annotated[bool, typer.Option("--overwrite", help="Replace existing files.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """Compute missing vectors from the graph, and measure them."""
    if resume is not None:
        sources = {name: context.get_parameter_source(name) for name in context.params}
        passed = {name for name, source in sources.items() if source and source.name != "DEFAULT"}
        if not WITH_RESUME.issuperset(passed):
            raise UsageError(
                "--resume takes its settings from the run, except --graph and --json",
                fix="remove the other arguments",
            )
        _resume(resume, graph_folder, as_json)
        return
    if modality is None or graph_folder is None:
        missing = "MODALITY" if modality is None else "--graph"
        raise UsageError(
            f"{missing} is missing",
            fix="run mmkgc complete MODALITY --graph DIR, or mmkgc complete --resume RUN",
        )
    from mmkgc_cli.commands.features import check_overwrite
    from mmkgc_cli.completion.pipeline import CompletionRequest, complete_store
    from mmkgc_cli.completion.strategies import TRAINED
    from mmkgc_cli.kg.storage import load_graph

    request = CompletionRequest(
        modality, strategy or "auto", variant=variant.value, missing_rate=missing_rate,
        mask_seed=mask_seed, pattern=pattern.value, seed=seed, iterations=iterations,
        allow_other_train=allow_other_train,
    )  # fmt: skip
    folder = (graph_folder.parent if graph_folder.is_file() else graph_folder) / "features"
    store = out_file or folder / f"{modality}.completed-{request.strategy}.h5"
    if store.suffix != ".h5":
        raise UsageError(
            f"--out {store}: expected a name that ends in .h5",
            fix=f"pass --out {store.with_suffix('.h5')}",
        )
    if request.strategy != "all":
        check_overwrite(store, overwrite)
    # A killed completion may have left its measures without a store; `_save_measures` compares.
    if missing_rate is not None and request.strategy in ("all", *TRAINED):
        check_overwrite(store.with_suffix(".json"), overwrite)
    source = features or folder / f"{modality}.h5"
    if request.strategy in TRAINED:
        from mmkgc_cli.runs.completion_config import resolve_completion, section_of

        flags = {
            ("maco", "epochs"): epochs,
            ("training", "device"): None if device is None else device.value,
        }
        settings = {key: value for key, value in flags.items() if value is not None}
        section = section_of(request, store=source, out=store)
        config = resolve_completion(
            section, (preset or Preset.paper).value, settings, overrides or []
        )
        report = _train(config, graph_folder, run, overwrite)
        _save_measures(report, store, overwrite=True)
    else:
        if any(value is not None for value in (preset, epochs, device, overrides, run)):
            raise UsageError(
                "--preset, --epochs, --device, --set and --run need a trained strategy, got "
                f"{request.strategy!r}",
                fix=f"pass --strategy {' or '.join(TRAINED)}, or remove these flags",
            )
        report = complete_store(
            request, load_graph(graph_folder), source, store,
            save_report=partial(_save_measures, store=store, overwrite=overwrite),
        )  # fmt: skip
    _report(report, store, as_json)


def _train(
    config: CompletionConfig, graph_folder: Path, run: Path | None, overwrite: bool
) -> dict[str, Any]:
    from mmkgc_cli.runs.completion import run_completion
    from mmkgc_cli.runs.directory import RunDirectory

    name = f"{graph_folder.resolve().name}-{config.completion.modality}-{config.strategy}"
    directory = RunDirectory(run or Path("runs") / name)
    with CompletionDisplay() as display:
        return run_completion(config, graph_folder, directory, [display], overwrite=overwrite)


def _resume(run: Path, graph_folder: Path | None, as_json: bool) -> None:
    from mmkgc_cli.runs.completion import resume_completion
    from mmkgc_cli.runs.directory import RunDirectory

    with CompletionDisplay() as display:
        report = resume_completion(RunDirectory(run), graph_folder, [display])
    store = Path(report["path"])
    _save_measures(report, store, overwrite=True)
    _report(report, store, as_json)


class CompletionDisplay(TrainingDisplay):
    """Progress of a completion."""

    def start(self, info: RunInfo) -> None:
        """Prints the strategy, the graph and the modality, and shows the bar."""
        say(
            f"{info.name} on {info.graph.name}: {len(info.graph.entities):,} entities, "
            f"{info.modality}, {info.parameters:,} parameters, {info.device}"
        )
        self.show_bar(info)

    def epoch(self, report: EpochReport) -> None:
        """Shows loss, throughput and, if measured, the quality of the held-out vectors."""
        hidden = ""
        if measures := report.valid:
            hidden = (
                f"held out: centred {measures['centred_cosine']:.3f}, "
                f"hits@10 {100 * measures['hits10']:.2f} %"
            )
        self.show(report, "entities", hidden)


def _save_measures(report: dict[str, Any], store: Path, overwrite: bool) -> None:
    """Writes measures beside the store.

    Raises:
        DataError: when other measures exist and `overwrite` is False, or they cannot be written.
    """
    from mmkgc_cli.commands.features import check_overwrite
    from mmkgc_cli.state.atomic import read_json, write_json
    from mmkgc_cli.state.parsing import parse_json

    if report["missing_rate"] is None:
        return
    path = store.with_suffix(".json")
    if path.exists() and not overwrite:
        with contextlib.suppress(DataError):
            if read_json(path) == parse_json(json.dumps(report), "the report"):
                return
    check_overwrite(path, overwrite)
    write_json(path, report)


def _report(report: dict[str, Any], store: Path, as_json: bool) -> None:
    """Prints the report."""
    measures_path = store.with_suffix(".json")
    measured = report["missing_rate"] is not None
    if as_json:
        print_json(report)
        return
    if report["strategy"] != "all":
        say(f"{printable(str(store))} written")
    if measured:
        say(f"{printable(str(measures_path))} written")
    _print(report)


def _print(report: dict[str, Any]) -> None:
    if choice := report["auto"]:
        out.print(_table("auto, on a held-out tenth of the observed vectors", choice["tried"]))
        out.print(
            f"selected {choice['best']}: centred cosine is {choice['gain']:.3f} above the next"
        )
    if "used" in report:
        fallback = ""
        if report["fallback"]:
            fallback = f" ({report['fallback']:,} set to {report['fallback_is']})"
        out.print(
            f"{counted(report['generated'], 'vector')} generated by {report['used']}{fallback}, "
            f"{report['observed']:,} observed"
        )
    if report["measures"]:
        title = f"measured on {counted(report['hidden'], 'held-out vector')}"
        out.print(_table(title, report["measures"]))
    else:
        out.print("no vectors were held out, so none were measured; --missing-rate holds some out")


def _table(title: str, measures: dict[str, dict[str, float]]) -> Any:
    header = ["strategy", "cosine", "centred", "hits@10 %", "MRR %", "energy"]
    return table(
        title,
        header,
        [
            [
                name,
                f"{values['cosine']:.3f}",
                f"{values['centred_cosine']:.3f}",
                f"{100 * values['hits10']:.2f}",
                f"{100 * values['mrr']:.2f}",
                f"{values['energy']:.3f}",
            ]
            for name, values in measures.items()
        ],
    )
