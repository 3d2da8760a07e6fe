"""``mmkgc scorers``: lists, shows, creates, checks and benchmarks scorers."""

from __future__ import annotations

import shlex
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from mmkgc_cli.commands import scorers_check
from mmkgc_cli.commands._help import Command, examples
from mmkgc_cli.commands._plugins_flag import TrustPluginsFlag
from mmkgc_cli.commands._shell import Device, JsonFlag, out, print_json, printable, say, table

app = typer.Typer(
    help="List, show, write, check and measure scorers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class Kind(StrEnum):
    """Kind of scorer to create."""

    query = "query"
    triple = "triple"


Name = Annotated[str, typer.Argument(help="Name of the scorer.")]


@app.command(
    "list",
    cls=Command,
    epilog=examples(
        "mmkgc scorers list",
        "mmkgc scorers list --json",
    ),
)
def list_(as_json: JsonFlag = False) -> None:
    """List scorers: built-in, installed, and your own.

    Files are read, not imported; what a file does not show as a literal is left out.
    """
    from mmkgc_cli.plugins import discover
    from mmkgc_cli.scoring.describe import list_scorers
    from mmkgc_cli.scoring.registry import SCORERS

    catalogue = discover(SCORERS)
    entries = list_scorers(catalogue)
    if as_json:
        print_json({"scorers": entries, "problems": catalogue.problems})
        return
    usable = [entry for entry in entries if not entry["problem"]]
    with_modalities = any(entry["modalities"] for entry in usable)
    header = ["scorer", "from", *(["modalities"] if with_modalities else []), "description"]
    rows = [
        [
            printable(entry["name"]),
            printable(entry["origin"]),
            *([", ".join(entry["modalities"] or ())] if with_modalities else []),
            printable(entry["summary"]),
        ]
        for entry in usable
    ]
    for line in _columns([header, *rows], out.width):
        out.print(line)
    for problem in [entry["problem"] for entry in entries if entry["problem"]]:
        say(f"broken: {printable(problem)}")
    for problem in catalogue.problems:
        say(f"warning: {printable(problem)}")


def _columns(rows: list[list[str]], width: int) -> list[str]:
    """Formats rows as lines of at most `width` characters; the last column is cut."""
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)][:-1]
    lines = ["  ".join([*map(str.ljust, row[:-1], widths), row[-1]]).rstrip() for row in rows]
    return [line if len(line) <= width else f"{line[: width - 1]}…" for line in lines]


@app.command(
    "show",
    cls=Command,
    epilog=examples(
        "mmkgc scorers show rotate",
        "mmkgc scorers show rotate --json",
    ),
)
def show(name: Name, as_json: JsonFlag = False) -> None:
    """Show the citation of a scorer, how it scores, and its settings."""
    from mmkgc_cli.scoring.describe import describe_scorer, scores_triples_only

    description = describe_scorer(name)
    if as_json:
        print_json(description)
        return
    out.print(printable(f"{name}: {description['summary']}"))
    two_way = {True: "yes: head and tail queries give a triple the same score", False: "no"}
    modalities = description["modalities"]
    lines = {
        "file": f"{description['file']} ({description['origin']})",
        "cite": description["citation"],
        "metric": description["metric"],
        "two-way": two_way.get(description["two_way"]),
        "modalities": None if modalities is None else ", ".join(modalities) or "none",
    }
    if scores_triples_only(name):
        lines["metric"] = "none: scores whole triples"
    for title, text in lines.items():
        if text is not None:  # the source shows it
            out.print(printable(f"  {title:<12} {text}"))
    rows = [
        [key, setting["type"], _default(setting), setting["range"] or "", setting["help"]]
        for key, setting in description["settings"].items()
    ]
    if rows:
        out.print()
        out.print(table("", ["setting", "type", "default", "range", "description"], rows, texts=5))
    for problem in description["not_used"]:
        say(f"warning: {printable(problem)}")


def _default(setting: dict[str, Any]) -> str:
    return "required" if setting["required"] else str(setting["default"])


@app.command(
    "new",
    cls=Command,
    epilog=examples(
        "mmkgc scorers new mine",
        "mmkgc scorers new mine --kind triple",
    ),
)
def new(
    name: Name,
    kind: Annotated[
        Kind,
        typer.Option(
            help="Template: query scores query rows against candidate rows (fast), triple is any "
            "network over whole triples."
        ),
    ] = Kind.query,
    folder: Annotated[Path, typer.Option(help="Directory to write to.")] = Path("scorers"),
    as_json: JsonFlag = False,
) -> None:
    """Write a working template of a scorer and its test.

    The file is trusted, also after you edit it (see mmkgc plugins).
    """
    from mmkgc_cli.plugins.trust import trust
    from mmkgc_cli.scoring.registry import SCORERS
    from mmkgc_cli.scoring.scaffold import write_scorer

    scorer, test = write_scorer(name, kind.value, folder)
    trust([scorer], edits=True)
    if as_json:
        print_json({"scorer": str(scorer), "test": str(test), "kind": kind.value})
        return
    out.print(f"written: {scorer}, {test}")
    if folder.resolve() != Path(SCORERS.folder).resolve():
        say(f"to let mmkgc find it: export {SCORERS.variable}={shlex.quote(str(folder.resolve()))}")
    say(f"next: python -m pytest {shlex.quote(str(test))}")
    say(f"next: mmkgc train {name} --graph GRAPH")


app.command(
    "check",
    cls=Command,
    epilog=examples(
        "mmkgc scorers check rotate",
        "mmkgc scorers check mine --set model.dim=8",
    ),
)(scorers_check.check)


@app.command(
    "bench",
    cls=Command,
    epilog=examples(
        "mmkgc scorers bench mine",
        "mmkgc scorers bench mine --graph graphs/elements --dim 64",
    ),
)
def bench(
    name: Name,
    *,
    graph: Annotated[
        Path | None,
        typer.Option(help="Directory of a prepared graph [default: a synthetic graph]."),
    ] = None,
    dim: Annotated[
        int | None,
        typer.Option(
            min=1, help="Width (model.dim) of both scorers. [default: that of the scorer]"
        ),
    ] = None,
    turns: Annotated[int, typer.Option(min=1, help="Number of turns per scorer.")] = 5,
    steps: Annotated[int, typer.Option(min=1, help="Training steps per turn.")] = 20,
    ranked: Annotated[int, typer.Option(min=1, help="Valid triples ranked per turn.")] = 512,
    device: Annotated[
        Device | None, typer.Option(help="Device to run on (training.device).")
    ] = None,
    overrides: Annotated[
        list[str] | None,
        typer.Option("--set", metavar="SECTION.KEY=VALUE", help="Set any setting; repeatable."),
    ] = None,
    trust_plugins: TrustPluginsFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Measure training and ranking speed, alternating with RotatE."""
    from dataclasses import asdict

    from mmkgc_cli.runs import benchmarking

    flags = {} if device is None else {("training", "device"): device.value}
    comparison = benchmarking.bench(
        name,
        graph,
        dim=dim,
        flags=flags,
        overrides=overrides or [],
        turns=turns,
        steps=steps,
        ranked=ranked,
    )
    if as_json:
        print_json(asdict(comparison) | {"ratio": comparison.ratio})
        return
    out.print(f"{comparison.graph}; {comparison.device}; medians of {turns} turns")
    rows = [
        [side.scorer, str(side.dim or ""), _rate(side.training), _rate(side.ranking)]
        for side in (comparison.scorer, comparison.against)
    ]
    ratio = [_ratio(comparison.ratio[key]) for key in ("training", "ranking")]
    rows.append([f"{name} / rotate", "", *ratio])
    out.print(table("", ["triples/s", "dim", "training", "ranking"], rows))


def _rate(rate: float | None) -> str:
    return "no parameters" if rate is None else f"{rate:,.0f}"


def _ratio(ratio: float | None) -> str:
    return "" if ratio is None else f"{ratio:.2f}"
