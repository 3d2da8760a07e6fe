"""``mmkgc audit``: statistics and problems of a prepared graph."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmkgc_cli.commands._audit_view import print_audit
from mmkgc_cli.commands._help import examples
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, say, table

_MOST_ITEMS = 1_000

EXAMPLES = examples(
    "mmkgc audit graphs/elements",
    "mmkgc audit graphs/elements --json",
)


def audit(
    graph: Annotated[Path, typer.Argument(help="Folder of a prepared graph.")],
    *,
    relations: Annotated[
        bool, typer.Option("--relations", help="List every relation with its category and size.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Show duplicates, leaks, unseen entities and relation patterns.

    Also shows the score of a model that only copies train.
    """
    from mmkgc_cli.kg.storage import load_graph
    from mmkgc_cli.runs.audit import stored_audit

    loaded = load_graph(graph)
    report = stored_audit(graph, loaded, say)
    if as_json:
        print_json(report)
        return
    counts = loaded.counts
    out.print(
        f"{loaded.name}: {counts['entities']:,} entities, {counts['relations']:,} relations, "
        f"{counts['train']:,} train, {counts['valid']:,} valid, {counts['test']:,} test triples"
    )
    for note in loaded.provenance.notes:
        out.print(f"  {note}")
    print_audit(report, loaded, _MOST_ITEMS)
    if relations:
        out.print(_relations(report))


def _relations(report: dict[str, Any]) -> Any:
    columns = ("category", "train", "valid", "test", "heads", "tails")
    rows = [
        [entry["relation"], *(str(entry[column]) for column in columns)]
        for entry in sorted(report["relations"], key=lambda entry: -entry["train"])
    ]
    return table("relations, largest first", ["relation", *columns], rows)
