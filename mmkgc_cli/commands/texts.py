"""``mmkgc texts``: tables of texts and numbers of registered graphs, from published files."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from mmkgc_cli.commands._downloads import Downloads, MaxBytesFlag, MaxSecondsFlag, OfflineFlag
from mmkgc_cli.commands._help import Command, examples
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, printable, say
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from mmkgc_cli.kg.texts.building import Built

app = typer.Typer(
    help="Build tables of texts and numbers.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


@app.callback()
def texts() -> None:
    """Build tables of texts and numbers."""


@app.command(
    "build",
    cls=Command,
    epilog=examples(
        "mmkgc texts build fb15k-237 --graph graphs/fb15k-237",
        "mmkgc texts build db15k --source path/to/files --out texts",
    ),
)
def build(
    name: Annotated[str, typer.Argument(help="Graph: fb15k-237, db15k, mkg-w or mkg-y.")],
    *,
    graph_folder: Annotated[
        Path, typer.Option("--graph", help="Folder of a prepared graph with these entities.")
    ],
    source: Annotated[
        Path | None,
        typer.Option(help="Folder with published files; missing ones are downloaded."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Output folder (default: GRAPH/texts).")
    ] = None,
    allow_unverified: Annotated[
        bool,
        typer.Option("--allow-unverified", help="Accept files in --source with another checksum."),
    ] = False,
    offline: OfflineFlag = False,
    max_bytes: MaxBytesFlag = None,
    max_seconds: MaxSecondsFlag = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace existing tables with other contents.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Build the tables of a registered graph from published files.

    Each table is compared with its registered checksum.
    """
    from mmkgc_cli.errors import UsageError
    from mmkgc_cli.kg.storage import load_graph
    from mmkgc_cli.kg.texts.building import BuildRequest, build_tables

    if allow_unverified and source is None:
        raise UsageError(
            "--allow-unverified: only files in --source can have other checksums",
            fix="pass --source FOLDER, or omit --allow-unverified",
        )
    graph = load_graph(graph_folder)
    folder = graph_folder.parent if graph_folder.is_file() else graph_folder
    with Downloads() as downloads:
        cache = downloads.cache(offline=offline, max_bytes=max_bytes, max_seconds=max_seconds)
        request = BuildRequest(name, source, cache, allow_unverified)
        built = build_tables(request, graph, out_folder or folder / "texts", overwrite=overwrite)
    if as_json:
        tables = [{**vars(table), "path": str(table.path)} for table in built]
        print_json({"name": name, "graph": graph.name, "tables": tables})
        return
    for table in built:
        _print(table, len(graph.entities), graph.name)


def _print(table: Built, entities: int, graph: str) -> None:
    say(f"{table.path} {'already exists' if table.already_there else 'written'}")
    if table.entities is None:
        covers = "as published"
    else:
        covers = f"{counted(table.entities, 'entity')} of {entities:,} of {printable(graph)}"
        if table.found != table.entities:
            covers += f", {table.found:,} of them described by the published files"
    state = "identical to the registered table"
    if not table.as_registered:
        state = f"not the registered table (SHA-256 {table.sha256[:12]}…)"
    out.print(f"{table.path.name}: {covers}; {state}")
    out.print(f"  from {', '.join(table.made_of)}")
