"""``mmkgc config``: configuration files."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from mmkgc_cli.commands._help import Command, examples
from mmkgc_cli.commands._shell import JsonFlag, out, print_json

app = typer.Typer(
    no_args_is_help=True,
    rich_markup_mode=None,
    help="Rewrite configuration files of earlier versions.",
)


@app.callback()
def config() -> None:
    """Rewrite configuration files of earlier versions."""


@app.command(
    "upgrade",
    cls=Command,
    epilog=examples(
        "mmkgc config upgrade my-recipe.toml",
        "mmkgc config upgrade runs/elements-rotate batches/demo",
    ),
)
def upgrade(
    paths: Annotated[
        list[Path],
        typer.Argument(
            metavar="PATH...", help="TOML files, run directories or directories of batches."
        ),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Rewrite settings of mmkgc 0.1 to their present names.

    Comments, finished jobs and checkpoints stay. A file that has the present form is left alone.
    """
    from mmkgc_cli.runs.version_0_1 import upgrade as upgrade_path

    lines = [line for path in paths for line in upgrade_path(path)]
    if as_json:
        print_json({"rewritten": lines})
        return
    for line in lines or ["nothing to rewrite"]:
        out.print(line)
