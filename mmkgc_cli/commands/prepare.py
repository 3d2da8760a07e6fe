"""``mmkgc prepare``: reads source files and stores a prepared graph."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmkgc_cli.commands._audit_view import print_audit
from mmkgc_cli.commands._downloads import Downloads, MaxBytesFlag, MaxSecondsFlag, OfflineFlag
from mmkgc_cli.commands._help import examples
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, say


class Format(StrEnum):
    """Formats of source files."""

    openke = "openke"
    hrt = "hrt"
    htr = "htr"
    libkge = "libkge"
    nt = "nt"


class Unseen(StrEnum):
    """Treatment of valid and test triples with an entity or a relation unseen in train."""

    error = "error"
    drop = "drop"
    keep = "keep"


EXAMPLES = examples(
    "mmkgc prepare elements",
    "mmkgc prepare mine --source triples.tsv --format hrt --split 0.8,0.1,0.1",
)


def prepare(
    name: Annotated[
        str,
        typer.Argument(help="Registered graph (see mmkgc datasets) or a new name."),
    ],
    *,
    source: Annotated[
        str | None,
        typer.Option(help="Folder, file, archive or URL with the triples."),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="Format of --source; hrt and htr are tab-separated names."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Output folder (default: graphs/NAME).")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Shares of a new random split, for instance 0.8,0.1,0.1.")
    ] = None,
    clean: Annotated[
        bool,
        typer.Option(
            "--clean",
            help="Drop duplicate rows and overlaps between the splits.",
        ),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Random seed of --split and --clean (default: 0).")
    ] = None,
    unseen: Annotated[
        Unseen | None,
        typer.Option(help="Triples with names unseen in train (default: error)."),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Table of names and labels, for printing only."),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Column of --labels with the labels; it then has a header."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Expected SHA-256 of the --source file.")
    ] = None,
    offline: OfflineFlag = False,
    max_bytes: MaxBytesFlag = None,
    max_seconds: MaxSecondsFlag = None,
    allow_unverified: Annotated[
        bool,
        typer.Option("--allow-unverified", help="Accept files with an unregistered checksum."),
    ] = False,
    trust_order: Annotated[
        bool,
        typer.Option("--trust-order", help="Skip the checks for swapped columns and a header."),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another graph in the output folder.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Read and check a graph, and write FOLDER/graph.h5.

    The audit of the graph is printed and written beside it.
    """
    from mmkgc_cli.kg.preparation import PrepareRequest, prepare
    from mmkgc_cli.kg.splitting import parse_ratios
    from mmkgc_cli.runs.audit import stored_audit

    folder = out_folder or Path("graphs") / name
    with Downloads() as downloads:
        request = PrepareRequest(
            name=name,
            source=source,
            format=None if format is None else format.value,
            split=None if split is None else parse_ratios(split),
            clean=clean,
            seed=seed,
            unseen=None if unseen is None else unseen.value,
            labels=labels,
            label_column=label_column,
            sha256=sha256,
            allow_unverified=allow_unverified,
            trust_order=trust_order,
            cache=downloads.cache(offline=offline, max_bytes=max_bytes, max_seconds=max_seconds),
        )
        prepared = prepare(request, folder, overwrite=overwrite)
    graph = prepared.graph
    report = stored_audit(folder, graph)
    if as_json:
        print_json(
            {
                "name": graph.name,
                "path": str(prepared.path),
                "already_there": prepared.already_there,
                **graph.counts,
                "entities_id": graph.entities_id,
                "train_id": graph.train_id,
                "fingerprint": graph.fingerprint,
                "verified": graph.provenance.verified,
                "notes": list(graph.provenance.notes),
                "audit": report,
            }
        )
        return
    say(f"{prepared.path} {'already exists' if prepared.already_there else 'written'}")
    counts = graph.counts
    out.print(
        f"{graph.name}: {counts['entities']:,} entities, {counts['relations']:,} relations, "
        f"{counts['train']:,} train, {counts['valid']:,} valid, {counts['test']:,} test triples"
    )
    for note in graph.provenance.notes:
        out.print(f"  {note}")
    out.print("first three train triples (head | relation | tail):")
    for row in graph.train[:3]:
        out.print("  " + " | ".join(graph.decode(row)))
    print_audit(report, graph)
