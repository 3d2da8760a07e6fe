"""``mmkgc eval``: ranks a split with a trained run under the fixed protocol."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mmkgc_cli.commands._help import examples
from mmkgc_cli.commands._plugins_flag import TrustPluginsFlag
from mmkgc_cli.commands._shell import Device, JsonFlag, out, print_json, say, table

METRICS = ("mrr", "mr", "hits@1", "hits@3", "hits@10", "amri")


class Split(StrEnum):
    """Split to rank."""

    test = "test"
    valid = "valid"


EXAMPLES = examples(
    "mmkgc eval runs/elements-rotate",
    "mmkgc eval runs/elements-rotate --split valid --json",
)


def evaluate(
    run: Annotated[Path, typer.Argument(help="Run directory.")],
    graph: Annotated[
        Path | None, typer.Option(help="Directory of the graph, if it has moved.")
    ] = None,
    device: Annotated[Device, typer.Option(help="Device to rank on.")] = Device.auto,
    split: Annotated[Split, typer.Option(help="Split to rank.")] = Split.test,
    trust_plugins: TrustPluginsFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Rank both sides of every triple and write results.json.

    Ranks are filtered by train, valid and test.
    """
    from mmkgc_cli.runs.directory import RunDirectory

    directory = RunDirectory(run)
    directory.require()  # before torch is imported
    from mmkgc_cli.runs.evaluation import run_evaluation

    results = run_evaluation(directory, graph, split.value, device.value)
    if change := results["model"]["plugin"]["change"]:
        say(f"warning: {change}; the results record this")
    if as_json:
        print_json(results)
        return
    metrics = results["metrics"][split.value]
    count = metrics["both"]["count"]
    title = (
        f"{results['protocol']['graph']} {split.value}, {results['model']['scorer']}: {count:,} "
        "filtered ranks"
    )
    rows = [
        [f"{side}, {tie}", *_cells(metrics[side][tie])]
        for side, tie in (
            ("both", "realistic"),
            ("both", "optimistic"),
            ("both", "pessimistic"),
            ("head", "realistic"),
            ("tail", "realistic"),
        )
    ]
    rows += [
        [f"{category}, realistic", *_cells(entry["both"]["realistic"])]
        for category, entry in results["categories"][split.value].items()
    ]
    out.print(
        table(title, ["", "MRR %", "MR", "hits@1 %", "hits@3 %", "hits@10 %", "AMRI %"], rows)
    )
    say(f"written: {directory.results}, {directory.ranks(split.value)}")


def _cells(metrics: dict[str, Any]) -> list[str]:
    return [
        f"{metrics[name]:,.1f}" if name == "mr" else f"{100 * metrics[name]:.2f}"
        for name in METRICS
    ]
