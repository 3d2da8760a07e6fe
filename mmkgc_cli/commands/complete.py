"""``mmkgc complete``: vectors for entities that lack them, and what those vectors are worth."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mmkgc_cli.commands._shell import JsonFlag, out, print_json, printable, say, table
from mmkgc_cli.commands.features import Pattern
from mmkgc_cli.words import counted


class Variant(StrEnum):
    """Whose vectors are made."""

    gen = "gen"
    all_gen = "all-gen"


def complete(
    modality: Annotated[str, typer.Argument(help="What is completed: image, text, …")],
    graph_folder: Annotated[Path, typer.Option("--graph", help="Folder of a prepared graph.")],
    features: Annotated[
        Path | None,
        typer.Option(help="Feature store; GRAPH/features/MODALITY.h5 when left out."),
    ] = None,
    strategy: Annotated[
        str,
        typer.Option(
            help="random, one, zero, mean, neighbours, propagation, ridge, kernel; auto takes the "
            "best on a held-out tenth; all only measures each."
        ),
    ] = "auto",
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
        int, typer.Option(min=0, help="Of random vectors and of what is held out.")
    ] = 0,
    iterations: Annotated[int, typer.Option(min=1, help="Of propagation.")] = 40,
    out_file: Annotated[
        Path | None,
        typer.Option(
            "--out",
            help="Store to write; GRAPH/features/MODALITY.completed-STRATEGY.h5 when left "
            "out. Measures go beside it as .json.",
        ),
    ] = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace files that are there.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Fill in vectors from what other entities and the train triples say, and measure them."""
    from mmkgc_cli.commands.features import may_write
    from mmkgc_cli.completion.completing import Request
    from mmkgc_cli.completion.completing import complete as complete_store
    from mmkgc_cli.errors import UsageError
    from mmkgc_cli.kg.storage import load_graph
    from mmkgc_cli.state.atomic import write_json

    request = Request(
        modality, strategy, variant.value, missing_rate, mask_seed, pattern.value, seed, iterations
    )
    graph = load_graph(graph_folder)
    folder = (graph_folder.parent if graph_folder.is_file() else graph_folder) / "features"
    store = out_file or folder / f"{modality}.completed-{strategy}.h5"
    if store.suffix != ".h5":
        raise UsageError(f"{store}: expected a name that ends in .h5; measures go to .json beside")
    saved = store.with_suffix(".json")
    if strategy != "all":
        may_write(store, overwrite)
    if missing_rate is not None:
        may_write(saved, overwrite)
    report = complete_store(request, graph, features or folder / f"{modality}.h5", store)
    if missing_rate is not None:
        write_json(saved, report)
    if as_json:
        print_json(report)
        return
    if strategy != "all":
        say(f"{printable(str(store))} written")
    if missing_rate is not None:
        say(f"{printable(str(saved))} written")
    _print(report)


def _print(report: dict[str, Any]) -> None:
    if tried := report["auto"]:
        out.print(_table("auto, on a held-out tenth of the observed vectors", tried["tried"]))
        out.print(f"took {tried['best']}, by {tried['gain']:.3f} of centred cosine before the next")
    if "used" in report:
        out.print(
            f"{counted(report['generated'], 'vector')} made by {report['used']}, "
            f"{report['fallback']:,} of them the mean for want of anything better; "
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
