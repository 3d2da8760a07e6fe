"""``mmkgc prepare``: from source files to a prepared graph."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmkgc_cli.commands._audit_view import print_audit
from mmkgc_cli.commands._downloads import Downloads, OfflineFlag
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, say


class Format(StrEnum):
    """Formats of source files."""

    openke = "openke"
    hrt = "hrt"
    htr = "htr"
    libkge = "libkge"
    nt = "nt"


class Unseen(StrEnum):
    """What to do with valid and test triples whose entity or relation train lacks."""

    error = "error"
    drop = "drop"
    keep = "keep"


def prepare(
    name: Annotated[
        str,
        typer.Argument(help="A known graph (see mmkgc datasets) or your own name."),
    ],
    source: Annotated[
        str | None,
        typer.Option(
            help="Folder, file, archive or address with the triples; known graphs need none."
        ),
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(
            help="hrt, htr: tab-separated names in that order; openke: *2id.txt; libkge: "
            "dataset.yaml and .del; nt: N-Triples."
        ),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Where to write; graphs/NAME when left out.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Pool all triples and split them anew: 0.8,0.1,0.1.")
    ] = None,
    clean: Annotated[
        bool,
        typer.Option(
            "--clean",
            help="Drop duplicate rows, and from valid and test what another split has.",
        ),
    ] = False,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Seed of --split, and of what --clean draws; else 0.")
    ] = None,
    unseen: Annotated[
        Unseen | None,
        typer.Option(
            help="Valid and test triples whose entity or relation train lacks: error (default), "
            "drop or keep; known graphs keep them, as published."
        ),
    ] = None,
    labels: Annotated[
        Path | None,
        typer.Option(help="Table of names and labels, for printing; no header, two columns."),
    ] = None,
    label_column: Annotated[
        str | None,
        typer.Option(help="Which column of a --labels table with a header holds the label."),
    ] = None,
    sha256: Annotated[
        str | None, typer.Option(help="Checksum that the --source file must have.")
    ] = None,
    offline: OfflineFlag = False,
    allow_unverified: Annotated[
        bool,
        typer.Option("--allow-unverified", help="Take files whose checksum is not the known one."),
    ] = False,
    trust_order: Annotated[
        bool,
        typer.Option(
            "--trust-order", help="Do not check the order of the columns, nor for a header."
        ),
    ] = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace another graph in the folder.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Read, check and store a graph as FOLDER/graph.h5, with its audit beside it."""
    from mmkgc_cli.kg.downloads import Cache
    from mmkgc_cli.kg.preparation import Request, prepare
    from mmkgc_cli.kg.splitting import parse_ratios
    from mmkgc_cli.runs.audit import stored_audit

    folder = out_folder or Path("graphs") / name
    with Downloads() as downloads:
        request = Request(
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
            cache=Cache(Path(), offline=offline, progress=downloads.progress),
        )
        prepared = prepare(request, folder, overwrite)
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
    say(f"{prepared.path} {'is there already' if prepared.already_there else 'written'}")
    counts = graph.counts
    out.print(
        f"{graph.name}: {counts['entities']:,} entities, {counts['relations']:,} relations, "
        f"{counts['train']:,} train, {counts['valid']:,} valid, {counts['test']:,} test triples"
    )
    for note in graph.provenance.notes:
        out.print(f"  {note}")
    out.print("the first three train triples, decoded (head | relation | tail):")
    for row in graph.train[:3]:
        out.print("  " + " | ".join(graph.decode(row)))
    print_audit(report, graph)
