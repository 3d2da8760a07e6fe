"""``mmkgc inspect``: mixture weights and negative certainty of a trained scorer."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from mmkgc_cli.commands._help import examples
from mmkgc_cli.commands._plugins_flag import TrustPluginsFlag
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, table

MAX_EPOCHS = 12  # evenly spaced epochs of the history

EXAMPLES = examples(
    "mmkgc inspect runs/elements-mocme",
    "mmkgc inspect runs/elements-mocme --json",
)


def inspect(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    graph: Annotated[
        Path | None, typer.Option(help="Directory of the graph, if it has moved.")
    ] = None,
    trust_plugins: TrustPluginsFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Show mixture weights and the entropy of negatives of RUN.

    Statistics of the weights are over entities. Certainty is measured on negatives of 1,024 train
    triples, which the entropy thresholds of the run divide into easy, ambiguous and hard.
    """
    from mmkgc_cli.runs.directory import RunDirectory

    directory = RunDirectory(run)
    directory.require()  # before torch is imported
    from mmkgc_cli.runs.inspection import inspect_run

    report = inspect_run(directory, graph)
    if as_json:
        print_json(dataclasses.asdict(report))
        return
    for summary in report.weighings:
        rows = []
        for p in summary.parts:
            numbers = (p.mean, p.deviation, p.low, p.median, p.high)
            cells = ("" if x is None else f"{x:.3f}" for x in numbers)
            rows.append((p.part, f"{p.count:,}", *cells))
        columns = ["", "entities", "mean", "deviation", "5 %", "median", "95 %"]
        out.print(table(summary.name, columns, rows))
        if summary.evenness is not None:
            out.print(f"evenness: {summary.evenness:.3f} (1: uniform weights)\n")
    if not report.weighings:
        out.print(f"{report.scorer} has no mixture weights\n")
    step = max(1, -(-len(report.history) // MAX_EPOCHS))
    certainties = [(str(row["epoch"]), row) for row in report.history[::-1][::step][::-1]]
    certainties.append((f"selected weights ({report.epoch})", dataclasses.asdict(report.certainty)))
    names = [field.name for field in dataclasses.fields(report.certainty)]
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
