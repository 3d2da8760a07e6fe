"""``mmkgc batch``: all the jobs of a recipe, and what came of them."""

from __future__ import annotations

import dataclasses
import os
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from typer.core import TyperGroup

from mmkgc_cli.commands._batch_view import (
    Display,
    print_gains,
    print_plan,
    print_results,
    print_status,
)
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, say
from mmkgc_cli.errors import MmkgcError, UsageError
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from mmkgc_cli.runs.batches.plan import Job
    from mmkgc_cli.runs.batches.recipe import Recipe


class Default(TyperGroup):
    """``mmkgc batch RECIPE`` is ``mmkgc batch run RECIPE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Names the command where there is none."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


class Executor(StrEnum):
    """Who starts the processes."""

    local = "local"
    slurm = "slurm"


class PartlyFailed(MmkgcError):
    """Some jobs did not end well. Exit code 4."""

    exit_code = 4


app = typer.Typer(
    cls=Default,
    help="Run the jobs of a recipe: mmkgc batch RECIPE. Finished ones are left alone.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Folder = Annotated[Path, typer.Argument(help="Directory of a batch.")]


def _shard(text: str | None) -> tuple[int, int]:
    """1-based part and number of parts."""
    if text is None:
        return 1, 1
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UsageError(f"--shard {text}: expected I/N with 1 <= I <= N, such as 2/8")
    return int(part), int(parts)


@app.command("run")
def run(
    recipe: Annotated[Path, typer.Argument(help="TOML with [batch], [settings], [grid], …")],
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="Directory of the batch; batches/RECIPE when left out."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Jobs at a time.")] = 1,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads of a job; 0 divides the processors.")
    ] = 0,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Only every Nth job, from the Ith on.")
    ] = None,
    max_minutes: Annotated[
        float, typer.Option(min=0, help="A job that takes longer is stopped; 0: none is.")
    ] = 0.0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Run failed jobs again, from where they were.")
    ] = False,
    executor: Annotated[
        Executor, typer.Option(help="slurm: a job array, one shard for each of --jobs.")
    ] = Executor.local,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Only check the recipe and print the jobs.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option(
            "--measure", help="With --dry-run: measure a few steps of each configuration."
        ),
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Run every job of RECIPE that has not ended; go on with those that were interrupted.

    Exit code 4 when some failed, or came out other than the recipe expects.
    """
    from mmkgc_cli.runs.batches.adoption import adopt
    from mmkgc_cli.runs.batches.folder import BatchFolder, rows
    from mmkgc_cli.runs.batches.plan import plan
    from mmkgc_cli.runs.batches.recipe import read_recipe
    from mmkgc_cli.runs.batches.summary import unexpected

    part, parts = _shard(shard)
    if measure and not dry_run:
        raise UsageError("--measure goes with --dry-run")
    read = read_recipe(recipe)
    planned = plan(read)
    folder = BatchFolder(out_folder or Path("batches") / recipe.stem)
    mine = adopt(folder, planned)[part - 1 :: parts]
    if dry_run:
        print_plan(folder, mine, _measured(mine) if measure else {}, as_json)
        return
    if executor is Executor.slurm:
        from mmkgc_cli.runs.batches.slurm import submit

        said = submit(recipe, folder.path, jobs, max_minutes, retry_failed)
        if as_json:
            print_json({"submitted": said})
        else:
            out.print(f"submitted {counted(len(said), 'shard')}: {', '.join(said)}")
        return
    endings = _run(read, folder, mine, jobs, threads, max_minutes, retry_failed)
    left = [row for row in rows(folder) if row["job"] in {job.name for job in mine}]
    problems = unexpected(read, mine, left)
    failed = [row for row in left if row["state"] == "failed"]
    if as_json:
        print_json({"folder": str(folder.path), "jobs": left, "unexpected": problems})
    else:
        print_results(left)
        say(f"{counted(len(endings), 'job')} ended, {len(failed)} of them failed: {folder.path}")
    if failed or problems:
        lines = [f"{row['job']}: {row['message']}" for row in failed]
        raise PartlyFailed("\n".join([*lines, *problems]))


def _run(
    recipe: Recipe,
    folder: Any,
    jobs: list[Job],
    at_once: int,
    threads: int,
    max_minutes: float,
    retry: bool,
) -> dict[str, Any]:
    import torch

    from mmkgc_cli.runs.batches.running import BatchRunner, Options

    options = Options(
        recipe.batch.split, at_once, max_minutes, threads, torch.cuda.device_count(), retry
    )
    with Display(jobs) as display:
        return dict(BatchRunner(folder, jobs, options, display).run())


def _measured(jobs: list[Job]) -> dict[str, float]:
    """Seconds that each job would take; seeds do not matter."""
    from mmkgc_cli.kg.storage import load_graph
    from mmkgc_cli.runs.estimate import estimate

    known: dict[str, float] = {}
    found = {}
    for job in jobs:
        # Which vectors stand in the gaps makes no difference either.
        filled = job.config.features.model_copy(update={"fill": "zero"})
        config = dataclasses.replace(job.config, features=filled)
        values = {**job.values, "training": {**job.values["training"], "seed": 0}}
        key = repr((job.graph, job.scorer, values))
        if key not in known:
            say(f"measuring {job.name}")
            known[key] = estimate(config, load_graph(Path(job.graph)), Path(os.curdir)).seconds
        found[job.name] = known[key]
    return found


@app.command("status")
def status(folder: Folder, as_json: JsonFlag = False) -> None:
    """Show what became of each job, from any terminal, while it runs or later."""
    from mmkgc_cli.runs.batches.folder import BatchFolder, rows

    found = rows(BatchFolder(folder))
    if as_json:
        print_json({"folder": str(folder), "jobs": found, "time": time.time()})
    else:
        print_status(found)


@app.command("results")
def results(
    folder: Folder,
    as_csv: Annotated[bool, typer.Option("--csv", help="A line a job, metrics as fractions.")] = (
        False
    ),
    against: Annotated[
        str | None,
        typer.Option(
            metavar="STRATEGY", help="Also what other strategies of completion gain over this one."
        ),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the results: means over seeds, with standard deviations."""
    from dataclasses import asdict

    from mmkgc_cli.runs.batches import summary
    from mmkgc_cli.runs.batches.folder import BatchFolder, rows

    if as_csv and as_json:
        raise UsageError("--csv or --json, not both")
    if as_csv and against is not None:
        raise UsageError("--csv has a line a job, --against compares them: not both")
    found = rows(BatchFolder(folder))
    gains = [] if against is None else summary.gains(found, against)
    if as_csv:
        out.file.write(summary.as_csv(found))
    elif as_json:
        groups = [{**asdict(g), "varied": dict(g.varied)} for g in summary.groups(found)]
        said = [{**asdict(g), "varied": dict(g.varied), "verdict": g.verdict} for g in gains]
        print_json({"folder": str(folder), "groups": groups, "gains": said, "jobs": found})
    else:
        print_results(found)
        if against is not None:
            print_gains(gains, against)
