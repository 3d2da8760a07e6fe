"""``mmkgc runs``: lists runs, shows one, and removes files that are not needed."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmkgc_cli.commands._help import Command, examples
from mmkgc_cli.commands._runs_view import (
    as_object,
    details,
    print_details,
    print_list,
    print_removals,
    removal_object,
)
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, printable, say
from mmkgc_cli.text import byte_text, counted

if TYPE_CHECKING:
    from mmkgc_cli.runs.cleaning import Removal

app = typer.Typer(
    help="List runs, show one, and remove files that are not needed.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Folder = Annotated[Path, typer.Argument(help="Folder that contains the runs.")]


@app.command(
    "list",
    cls=Command,
    epilog=examples(
        "mmkgc runs list",
        "mmkgc runs list runs --scorer rotate --json",
    ),
)
def list_(
    folder: Folder = Path("runs"),
    scorer: Annotated[str | None, typer.Option(help="List only runs of this scorer.")] = None,
    graph: Annotated[str | None, typer.Option(help="List only runs on this graph (name).")] = None,
    as_json: JsonFlag = False,
) -> None:
    """List the runs below FOLDER, the last changed first."""
    from mmkgc_cli.runs.listing import list_runs

    runs = [
        run
        for run in list_runs(folder)
        if scorer in (None, run.scorer) and graph in (None, run.graph)
    ]
    if as_json:
        print_json({"folder": str(folder), "runs": [as_object(run) for run in runs]})
    elif runs:
        print_list(runs, time.time())
    else:
        filtered = "" if scorer is None and graph is None else " of that scorer and graph"
        say(f"no runs{filtered} below {printable(str(folder))}")


@app.command(
    "show",
    cls=Command,
    epilog=examples(
        "mmkgc runs show runs/elements-rotate",
        "mmkgc runs show runs/elements-rotate --json",
    ),
)
def show(
    run: Annotated[Path, typer.Argument(help="Run directory.")], as_json: JsonFlag = False
) -> None:
    """Show settings, progress, results and next command of RUN."""
    from mmkgc_cli.errors import DataError
    from mmkgc_cli.runs.status import inspect, is_run

    if not is_run(run):
        raise DataError(
            f"{run}: not a run directory", fix="list the runs of a folder: mmkgc runs list FOLDER"
        )
    description = details(inspect(run))
    if as_json:
        print_json(description)
    else:
        print_details(description, time.time())


@app.command(
    "clean",
    cls=Command,
    epilog=examples(
        "mmkgc runs clean",
        "mmkgc runs clean runs --failed --yes",
    ),
)
def clean(
    folder: Folder = Path("runs"),
    yes: Annotated[
        bool, typer.Option("--yes", help="Remove the files; the default only shows them.")
    ] = False,
    failed: Annotated[
        bool,
        typer.Option(
            "--failed",
            help="Also remove failed runs, and stopped runs without a checkpoint or weights.",
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List removable files of runs, and remove them with --yes.

    This removes checkpoints of finished runs and temporary files of dead processes, and keeps
    weights, results, traces and settings. A finished run without checkpoints can be evaluated, but
    not trained for longer. Runs that are training or can be resumed are not changed.
    """
    from mmkgc_cli.errors import DataError
    from mmkgc_cli.runs.cleaning import plan, remove

    removals: list[Removal] = plan(folder, failed)
    if yes:
        removals = [remove(removal, failed) for removal in removals]
    total = sum(removal.bytes for removal in removals)
    if as_json:
        objects = [removal_object(removal) for removal in removals]
        print_json({"folder": str(folder), "removed": yes, "bytes": total, "runs": objects})
    elif not removals:
        say(f"nothing to remove below {printable(str(folder))}")
    else:
        print_removals(removals)
        files = counted(sum(len(removal.files) for removal in removals), "file")
        if yes:
            out.print(f"removed: {files}, {byte_text(total)}")
        else:
            out.print(f"would remove: {files}, {byte_text(total)}")
            say("nothing has been removed; --yes does it")
    if problems := [problem for removal in removals for problem in removal.problems]:
        raise DataError.joined(map(printable, problems))
