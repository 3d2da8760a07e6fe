"""``mmkgc complete``: vectors for entities that lack them, and what those vectors are worth."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkgc_cli.commands._shell import Device, JsonFlag, out, print_json, printable, say, table
from mmkgc_cli.commands.features import Pattern
from mmkgc_cli.commands.train import Display
from mmkgc_cli.errors import UsageError
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from mmkgc_cli.completion.pipeline import Request
    from mmkgc_cli.kg.graph import Graph
    from mmkgc_cli.runs.completion_config import CompletionConfig
    from mmkgc_cli.training.loop import EpochReport


# Parameters that go with --resume.
WITH_RESUME = {"resume", "graph_folder", "as_json"}


class Variant(StrEnum):
    """Whose vectors are made."""

    gen = "gen"
    all_gen = "all-gen"


class Preset(StrEnum):
    """Settings that `--set` goes on from."""

    paper = "paper"
    released = "released"


def complete(
    context: typer.Context,
    modality: Annotated[
        str | None, typer.Argument(help="What is completed: image, text, …")
    ] = None,
    graph_folder: Annotated[
        Path | None, typer.Option("--graph", help="Folder of a prepared graph.")
    ] = None,
    features: Annotated[
        Path | None,
        typer.Option(help="Feature store; GRAPH/features/MODALITY.h5 when left out."),
    ] = None,
    strategy: Annotated[
        str | None,
        typer.Option(
            help="random, one, zero, mean, neighbours, propagation, ridge, kernel; maco, which is "
            "trained; auto (the default) takes the best on a held-out tenth; all only measures "
            "each. Neither trains maco."
        ),
    ] = None,
    variant: Annotated[
        Variant, typer.Option(help="gen: entities without a vector; all-gen: all of them.")
    ] = Variant.gen,
    missing_rate: Annotated[
        float | None,
        typer.Option(help="Hide this share of the observed vectors first, and measure on them."),
    ] = None,
    mask_seed: Annotated[int, typer.Option(min=0, help="Decides which are hidden.")] = 0,
    pattern: Annotated[
        Pattern, typer.Option(help="Who is hidden first, as in `features mask`.")
    ] = Pattern.random,
    seed: Annotated[
        int, typer.Option(min=0, help="Of all that is drawn, and of what is held out.")
    ] = 0,
    iterations: Annotated[int, typer.Option(min=1, help="Of propagation.")] = 40,
    allow_other_train: Annotated[
        bool,
        typer.Option(
            "--allow-other-train",
            help="Take a store that was made from another train split; what comes out says so.",
        ),
    ] = False,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Store to write; GRAPH/features/MODALITY.completed-STRATEGY.h5 when left "
            "out. Measures go beside it as .json.",
        ),
    ] = None,
    preset: Annotated[
        Preset | None, typer.Option(help="Settings of maco: the paper's, or its released code's.")
    ] = None,
    epochs: Annotated[int | None, typer.Option(help="maco.epochs")] = None,
    device: Annotated[Device | None, typer.Option(help="training.device")] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Any maco.KEY or training.KEY."),
    ] = None,
    run: Annotated[
        Path | None,
        typer.Option(help="Run directory of maco; runs/GRAPH-MODALITY-maco when left out."),
    ] = None,
    resume: Annotated[
        Path | None,
        typer.Option(help="Go on with this run of maco, as if it had not been stopped."),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Fill in vectors from what other entities and the train triples say, and measure them."""
    if resume is not None:
        sources = {name: context.get_parameter_source(name) for name in context.params}
        said = {name for name, source in sources.items() if source and source.name != "DEFAULT"}
        if not WITH_RESUME.issuperset(said):
            raise UsageError(
                "--resume takes its settings from the run; only --graph and --json go with it"
            )
        _resume(resume, graph_folder, as_json)
        return
    if modality is None or graph_folder is None:
        raise UsageError("say which MODALITY on which --graph, or --resume RUN")
    from mmkgc_cli.commands.features import check_overwrite
    from mmkgc_cli.completion.pipeline import Request
    from mmkgc_cli.completion.pipeline import complete as complete_store
    from mmkgc_cli.completion.strategies import TRAINED
    from mmkgc_cli.kg.storage import load_graph

    request = Request(
        modality, strategy or "auto", variant.value, missing_rate, mask_seed, pattern.value, seed,
        iterations, allow_other_train,
    )  # fmt: skip
    folder = (graph_folder.parent if graph_folder.is_file() else graph_folder) / "features"
    store = out_file or folder / f"{modality}.completed-{request.strategy}.h5"
    if store.suffix != ".h5":
        raise UsageError(f"{store}: expected a name that ends in .h5; measures go to .json beside")
    if request.strategy != "all":
        check_overwrite(store, overwrite)
    if missing_rate is not None:
        check_overwrite(store.with_suffix(".json"), overwrite)
    source = features or folder / f"{modality}.h5"
    if request.strategy in TRAINED:
        flags = {
            ("maco", "epochs"): epochs,
            ("training", "device"): None if device is None else device.value,
        }
        settings = {key: value for key, value in flags.items() if value is not None}
        chosen = preset or Preset.paper
        report = _train(
            request, graph_folder, (source, store), run, chosen.value, settings, overrides or [],
            overwrite,
        )  # fmt: skip
    else:
        if any(value is not None for value in (preset, epochs, device, overrides, run)):
            raise UsageError(
                "--preset, --epochs, --device, --set and --run are for a strategy that is trained: "
                f"say --strategy {' or '.join(TRAINED)}"
            )
        report = complete_store(request, load_graph(graph_folder), source, store)
    _tell(report, store, as_json)


def _train(
    request: Request, graph_folder: Path, files: tuple[Path, Path], run: Path | None,
    preset: str, flags: dict[tuple[str, str], Any], overrides: list[str], overwrite: bool,
) -> dict[str, Any]:  # fmt: skip
    from mmkgc_cli.runs.completion import run_completion
    from mmkgc_cli.runs.completion_config import resolve_completion, section_of
    from mmkgc_cli.runs.directory import RunDirectory

    config = resolve_completion(
        section_of(request, store=files[0], out=files[1]), preset, flags, overrides
    )
    name = f"{graph_folder.resolve().name}-{request.modality}-{request.strategy}"
    directory = RunDirectory(run or Path("runs") / name)
    with _Display() as display:
        return run_completion(config, graph_folder, directory, overwrite, display)


def _resume(run: Path, graph_folder: Path | None, as_json: bool) -> None:
    from mmkgc_cli.runs.completion import resume_completion
    from mmkgc_cli.runs.directory import RunDirectory

    with _Display() as display:
        report = resume_completion(RunDirectory(run), graph_folder, display)
    _tell(report, Path(report["path"]), as_json)


class _Display(Display):
    """Progress of a completion."""

    def begin_completion(
        self, graph: Graph, config: CompletionConfig, parameters: int, device: str
    ) -> None:
        """Says what is about to be trained."""
        say(
            f"{config.strategy} on {graph.name}: {len(graph.entities):,} entities, "
            f"{config.completion.modality}, {parameters:,} parameters, {device}"
        )
        self.start(config.maco.epochs)

    def epoch(self, report: EpochReport) -> None:
        """Shows loss, throughput and, where it was measured, completion of what was hidden."""
        hidden = ""
        if found := report.valid:
            hidden = (
                f"hidden: centred {found['centred_cosine']:.3f}, "
                f"first 10 {100 * found['hits10']:.2f} %"
            )
        self.show(report, "entities", hidden)


def _tell(report: dict[str, Any], store: Path, as_json: bool) -> None:
    """Saves measures beside the store, and prints them."""
    from mmkgc_cli.state.atomic import write_json

    saved = store.with_suffix(".json")
    measured = report["missing_rate"] is not None
    if measured:
        write_json(saved, report)
    if as_json:
        print_json(report)
        return
    if report["strategy"] != "all":
        say(f"{printable(str(store))} written")
    if measured:
        say(f"{printable(str(saved))} written")
    _print(report)


def _print(report: dict[str, Any]) -> None:
    if tried := report["auto"]:
        out.print(_table("auto, on a held-out tenth of the observed vectors", tried["tried"]))
        out.print(f"took {tried['best']}, by {tried['gain']:.3f} of centred cosine before the next")
    if "used" in report:
        out.print(
            f"{counted(report['generated'], 'vector')} made by {report['used']}, "
            f"{report['fallback']:,} of them {report['fallback_is']}; "
            f"{report['observed']:,} observed"
        )
    if report["measures"]:
        title = f"measured on {counted(report['hidden'], 'hidden vector')}"
        out.print(_table(title, report["measures"]))
    else:
        out.print("nothing was hidden, so nothing can be measured: --missing-rate hides some")


def _table(title: str, measures: dict[str, dict[str, float]]) -> Any:
    header = ["strategy", "cosine", "centred", "first 10 %", "MRR %", "energy"]
    return table(
        title,
        header,
        [
            [
                name,
                f"{found['cosine']:.3f}",
                f"{found['centred_cosine']:.3f}",
                f"{100 * found['hits10']:.2f}",
                f"{100 * found['mrr']:.2f}",
                f"{found['energy']:.3f}",
            ]
            for name, found in measures.items()
        ],
    )
