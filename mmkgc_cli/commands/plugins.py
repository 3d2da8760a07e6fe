"""``mmkgc plugins``: plugin files that may run."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import typer

from mmkgc_cli.commands._help import Command, examples
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, printable, say, table

app = typer.Typer(
    help="Trust plugin files, or show which are trusted.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)

Files = Annotated[list[Path], typer.Argument(metavar="FILE...", help="Plugin files.")]


@app.command(
    "trust",
    cls=Command,
    epilog=examples(
        "mmkgc plugins trust scorers/mine.py",
        "mmkgc plugins trust --edits scorers/mine.py",
    ),
)
def trust(
    files: Files,
    *,
    edits: Annotated[
        bool, typer.Option("--edits", help="Trust what is written to these paths later, too.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Let commands run the code of plugin files.

    A file is remembered by the SHA-256 of its content; a changed file has to be trusted again. Read
    a file that you did not write before you trust it.
    """
    from mmkgc_cli.plugins import trust as records

    entries = records.trust(files, edits=edits)
    if as_json:
        print_json({"trusted": [dataclasses.asdict(entry) for entry in entries]})
        return
    for entry in entries:
        out.print(printable(f"trusted: {entry.file} ({_scope(entry.sha256)})"))
    if not entries:
        say("already trusted")


@app.command(
    "list",
    cls=Command,
    epilog=examples("mmkgc plugins list", "mmkgc plugins list --json"),
)
def list_(as_json: JsonFlag = False) -> None:
    """List the plugin files that are trusted."""
    from mmkgc_cli.plugins import trust as records

    entries = records.trusted_files()
    if as_json:
        print_json(
            {
                "file": str(records.record_file()),
                "trusted": [dataclasses.asdict(entry) for entry in entries],
            }
        )
        return
    rows = [[printable(entry.file), _scope(entry.sha256)] for entry in entries]
    if rows:
        out.print(table("", ["file", "trusted"], rows, texts=2))
    else:
        say("no file is trusted; built-in and installed plugins need no permission")


@app.command(
    "revoke",
    cls=Command,
    epilog=examples("mmkgc plugins revoke scorers/mine.py", "mmkgc plugins revoke 3f9a61c2"),
)
def revoke(
    names: Annotated[
        list[str],
        typer.Argument(metavar="FILE...", help="Paths, or first digits (8 or more) of SHA-256s."),
    ],
    as_json: JsonFlag = False,
) -> None:
    """Forget that plugin files are trusted."""
    from mmkgc_cli.plugins import trust as records

    entries = records.revoke(names)
    if as_json:
        print_json({"revoked": [dataclasses.asdict(entry) for entry in entries]})
        return
    for entry in entries:
        out.print(printable(f"revoked: {entry.file} ({_scope(entry.sha256)})"))


def _scope(sha256: str) -> str:
    return f"SHA-256 {sha256[:12]}…" if sha256 else "the path, whatever is written to it"
