"""``mmkgc batch``: runs the jobs of a recipe and shows their states and results."""

from __future__ import annotations

import os
import time
from dataclasses import replace
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
from mmkgc_cli.commands._help import Command, examples
from mmkgc_cli.commands._plugins_flag import TrustPluginsFlag
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, say
from mmkgc_cli.errors import MmkgcError, UsageError
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from mmkgc_cli.runs.batches.plan import Job


class Default(TyperGroup):
    """``mmkgc batch RECIPE`` is ``mmkgc batch run RECIPE``."""

    def parse_args(self, ctx: Any, args: list[str]) -> list[str]:
        """Inserts the name of the command if it is left out."""
        if args and args[0] not in self.commands and args[0] not in ("--help", "-h"):
            args = ["run", *args]
        return super().parse_args(ctx, args)


class Executor(StrEnum):
    """Where the jobs run."""

    local = "local"
    slurm = "slurm"


class PartlyFailed(MmkgcError):
    """Some jobs failed. Exit code 4."""

    exit_code = 4


app = typer.Typer(
    cls=Default,
    help="Run the jobs of a recipe: mmkgc batch RECIPE.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)
Folder = Annotated[Path, typer.Argument(help="Directory of a batch.")]


def _shard(text: str | None) -> tuple[int, int]:
    """Number of the shard, from 1, and number of shards."""
    if text is None:
        return 1, 1
    part, slash, parts = text.partition("/")
    if not (slash and part.isdecimal() and parts.isdecimal() and 1 <= int(part) <= int(parts)):
        raise UsageError(
            f"--shard {text}: expected I/N with 1 <= I <= N", fix="write it as --shard 2/8"
        )
    return int(part), int(parts)


@app.command(
    "run",
    cls=Command,
    epilog=examples(
        "mmkgc batch recipes/batch-elements.toml --jobs 2",
        "mmkgc batch recipes/batch-elements.toml --dry-run",
    ),
)
def run(
    recipe: Annotated[
        Path, typer.Argument(help="Recipe: a TOML file with [batch], [settings] and [grid].")
    ],
    *,
    out_folder: Annotated[
        Path | None,
        typer.Option("--out", help="Directory of the batch; default: batches/RECIPE."),
    ] = None,
    jobs: Annotated[int, typer.Option(min=1, help="Number of jobs at a time.")] = 1,
    threads: Annotated[
        int, typer.Option(min=0, help="CPU threads of each job; 0 divides the processors.")
    ] = 0,
    shard: Annotated[
        str | None, typer.Option(metavar="I/N", help="Run every Nth job, starting with the Ith.")
    ] = None,
    max_minutes: Annotated[
        float, typer.Option(min=0, help="Stop a job after this time; 0: no limit.")
    ] = 0.0,
    retry_failed: Annotated[
        bool, typer.Option("--retry-failed", help="Resume failed jobs.")
    ] = False,
    executor: Annotated[
        Executor, typer.Option(help="Where jobs run; slurm: an array of --jobs shards.")
    ] = Executor.local,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the recipe, print the jobs and exit.")
    ] = False,
    measure: Annotated[
        bool,
        typer.Option("--measure", help="With --dry-run: estimate the time from a few steps."),
    ] = False,
    trust_plugins: TrustPluginsFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Run the jobs of RECIPE that have not ended.

    Interrupted jobs are resumed.

    Exit code 4 when jobs failed or missed the results that the recipe expects.
    """
    from mmkgc_cli.runs.batches.adoption import adopt
    from mmkgc_cli.runs.batches.folder import BatchFolder, rows
    from mmkgc_cli.runs.batches.plan import plan
    from mmkgc_cli.runs.batches.processes import count_gpus
    from mmkgc_cli.runs.batches.recipe import read_recipe
    from mmkgc_cli.runs.batches.running import BatchRunner, Options
    from mmkgc_cli.runs.batches.summary import unexpected

    part, parts = _shard(shard)
    if measure and not dry_run:
        raise UsageError("--measure needs --dry-run", fix="add --dry-run")
    content = read_recipe(recipe)
    jobs_of_recipe = plan(content)
    folder = BatchFolder(out_folder or Path("batches") / recipe.stem)
    selected = adopt(folder, jobs_of_recipe)[part - 1 :: parts]
    if dry_run:
        print_plan(folder, selected, _estimates(selected) if measure else {}, as_json)
        return
    if executor is Executor.slurm:
        from mmkgc_cli.runs.batches.slurm import submit

        ids = submit(recipe, folder.path, jobs, max_minutes, retry=retry_failed)
        if as_json:
            print_json({"submitted": ids})
        else:
            out.print(f"submitted {counted(len(ids), 'shard')}: {', '.join(ids)}")
        return
    options = Options(content.batch.split, jobs, max_minutes, threads, count_gpus(), retry_failed)
    with Display(selected) as display:
        endings = BatchRunner(folder, selected, options, display).run()
    names = {job.name for job in selected}
    table = [row for row in rows(folder) if row["job"] in names]
    problems = unexpected(content, selected, table)
    failed = [row for row in table if row["state"] == "failed"]
    if as_json:
        print_json({"folder": str(folder.path), "jobs": table, "unexpected": problems})
    else:
        print_results(table)
        say(f"{counted(len(endings), 'job')} ended, {len(failed)} of them failed: {folder.path}")
    if failed or problems:
        lines = [f"{row['job']}: {row['message']}" for row in failed]
        raise PartlyFailed.joined([*lines, *problems])


def _estimates(jobs: list[Job]) -> dict[str, float]:
    """Seconds that each job would take, by name; jobs that differ in their seeds share a value."""
    from mmkgc_cli.kg.storage import load_graph
    from mmkgc_cli.runs.config import resolve
    from mmkgc_cli.runs.estimate import estimate
    from mmkgc_cli.runs.toml_file import TomlFile
    from mmkgc_cli.scoring import load_scorer

    seconds: dict[str, float] = {}
    by_name = {}
    for job in jobs:
        values = {**job.values, "training": {**job.values["training"], "seed": 0}}
        key = repr((job.graph, job.scorer, values))
        if key not in seconds:
            say(f"measuring {job.name}")
            config = resolve(
                job.scorer, load_scorer(job.scorer).Config, file=TomlFile(values, "", {})
            )
            # The time does not depend on the fill either, and stores may have gaps.
            features = config.features.model_copy(update={"fill": "zero"})
            config = replace(config, features=features)
            graph = load_graph(Path(job.graph))
            seconds[key] = estimate(config, graph, Path(os.curdir)).seconds
        by_name[job.name] = seconds[key]
    return by_name


@app.command(
    "status",
    cls=Command,
    epilog=examples(
        "mmkgc batch status batches/batch-elements",
        "mmkgc batch status batches/batch-elements --json",
    ),
)
def status(folder: Folder, as_json: JsonFlag = False) -> None:
    """Show the state of each job, while the batch runs or later."""
    from mmkgc_cli.runs.batches.folder import BatchFolder, rows

    table = rows(BatchFolder(folder))
    if as_json:
        print_json({"folder": str(folder), "jobs": table, "time": time.time()})
    else:
        print_status(table)


@app.command(
    "results",
    cls=Command,
    epilog=examples(
        "mmkgc batch results batches/batch-elements",
        "mmkgc batch results batches/maco-elements --against random",
    ),
)
def results(
    folder: Folder,
    as_csv: Annotated[
        bool, typer.Option("--csv", help="Print a line for each job, metrics as fractions.")
    ] = (False),
    against: Annotated[
        str | None,
        typer.Option(metavar="STRATEGY", help="Also show gains over this completion strategy."),
    ] = None,
    as_json: JsonFlag = False,
) -> None:
    """Show the results: means over seeds with standard deviations."""
    from dataclasses import asdict

    from mmkgc_cli.runs.batches import summary
    from mmkgc_cli.runs.batches.folder import BatchFolder, rows

    if as_csv and as_json:
        raise UsageError("--csv and --json exclude each other", fix="leave one of them out")
    if as_csv and against is not None:
        raise UsageError("--csv and --against exclude each other", fix="leave one of them out")
    table = rows(BatchFolder(folder))
    gains = [] if against is None else summary.gains(table, against)
    if as_csv:
        out.write_data(summary.as_csv(table))
    elif as_json:
        groups = [{**asdict(g), "varied": dict(g.varied)} for g in summary.groups(table)]
        objects = [{**asdict(g), "varied": dict(g.varied), "verdict": g.verdict} for g in gains]
        print_json({"folder": str(folder), "groups": groups, "gains": objects, "jobs": table})
    else:
        print_results(table)
        if against is not None:
            print_gains(gains, against)
