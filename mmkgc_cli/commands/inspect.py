"""``mmkgc inspect``: what a trained scorer weighs its parts by, and how sure it is of negatives."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from mmkgc_cli.commands._shell import JsonFlag, out, print_json, table

SHOWN = 12  # epochs of the history, spread over it


def inspect(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    graph: Annotated[
        Path | None, typer.Option(help="Folder of its graph, if it is elsewhere now.")
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what the scorer of RUN weighs modalities and experts by, and its certainty of negatives.

    Weights are a distribution over entities. Certainty is told of negatives of 1,024 train
    triples: easy, ambiguous and hard by the entropy thresholds of the run.
    """
    from mmkgc_cli.runs.directory import RunDirectory

    directory = RunDirectory(run)
    directory.require()  # before torch is imported
    from mmkgc_cli.runs.inspection import learnt

    found = learnt(directory, graph)
    if as_json:
        print_json(dataclasses.asdict(found))
        return
    for weighing in found.weighings:
        rows = []
        for p in weighing.parts:
            numbers = (p.mean, p.deviation, p.low, p.median, p.high)
            shown = ("" if x is None else f"{x:.3f}" for x in numbers)
            rows.append((p.part, f"{p.count:,}", *shown))
        columns = ["", "entities", "mean", "deviation", "5 %", "median", "95 %"]
        out.print(table(weighing.name, columns, rows))
        if weighing.evenness is not None:
            out.print(f"evenness: {weighing.evenness:.3f} (1: all alike)\n")
    if not found.weighings:
        out.print(f"{found.scorer} weighs no parts\n")
    step = max(1, -(-len(found.history) // SHOWN))
    certainties = [(str(row["epoch"]), row) for row in found.history[::-1][::step][::-1]]
    certainties.append((f"the kept weights ({found.epoch})", dataclasses.asdict(found.certainty)))
    names = [field.name for field in dataclasses.fields(found.certainty)]
    out.print(
        table(
            "negatives",
            ["epoch", *(name.replace("_", " ") for name in names)],
            [
                (epoch, *(f"{100 * row[name]:.1f} %" for name in names))
                for epoch, row in certainties
            ],
        )
    )
