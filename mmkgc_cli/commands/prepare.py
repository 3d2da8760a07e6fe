"""``mmkgc prepare``: from source files to a prepared graph."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from mmkgc_cli.commands._shell import JsonFlag, out, print_json, say


class Format(StrEnum):
    """Formats of source files."""

    openke = "openke"
    hrt = "hrt"
    htr = "htr"


def prepare(
    name: Annotated[
        str,
        typer.Argument(help="A known graph (elements, fb15k-237, db15k, ...) or your own name."),
    ],
    source: Annotated[
        Path | None, typer.Option(help="Folder (or file) with the triples; elements needs none.")
    ] = None,
    format: Annotated[
        Format | None,
        typer.Option(help="openke: *2id.txt; hrt, htr: tab-separated names in that order."),
    ] = None,
    out_folder: Annotated[
        Path | None, typer.Option("--out", help="Where to write; graphs/NAME when left out.")
    ] = None,
    split: Annotated[
        str | None, typer.Option(help="Pool all triples and split them anew: 0.8,0.1,0.1.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Seed of --split.")] = 0,
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
    """Read, check and store a graph as FOLDER/graph.h5."""
    from mmkgc_cli.kg.preparation import Request, prepare
    from mmkgc_cli.kg.splitting import parse_ratios

    request = Request(
        name=name,
        source=source,
        format=None if format is None else format.value,
        split=None if split is None else parse_ratios(split),
        seed=seed,
        allow_unverified=allow_unverified,
        trust_order=trust_order,
    )
    prepared = prepare(request, out_folder or Path("graphs") / name, overwrite)
    graph = prepared.graph
    unseen, leaks = graph.unseen(), graph.leaks()
    if as_json:
        print_json(
            {
                "name": graph.name,
                "path": str(prepared.path),
                "already_there": prepared.already_there,
                **graph.counts,
                "unseen": unseen,
                "leaks": leaks,
                "entities_id": graph.entities_id,
                "train_id": graph.train_id,
                "fingerprint": graph.fingerprint,
                "verified": graph.provenance.verified,
            }
        )
        return
    say(f"{prepared.path} {'is there already' if prepared.already_there else 'written'}")
    counts = graph.counts
    out.print(
        f"{graph.name}: {counts['entities']:,} entities, {counts['relations']:,} relations, "
        f"{counts['train']:,} train, {counts['valid']:,} valid, {counts['test']:,} test triples"
    )
    out.print("the first three train triples, decoded (head | relation | tail):")
    for row in graph.train[:3]:
        out.print("  " + " | ".join(graph.decode(row)))
    for name_of_split, count in unseen.items():
        if count:
            say(
                f"note: {count} {name_of_split} triples have an entity or relation that train lacks"
            )
    if any(leaks.values()):
        say(
            f"warning: the splits overlap: {leaks['valid_in_train']} valid and "
            f"{leaks['test_in_train']} test triples are also in train, "
            f"{leaks['valid_in_test']} valid triples also in test; results will say so"
        )
