"""``mmkgc datasets``: the benchmarks that `mmkgc prepare NAME` can download."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkgc_cli.commands._help import examples
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, table

if TYPE_CHECKING:
    from mmkgc_cli.kg.datasets import Dataset, Variant

BUILT_IN = {
    "title": "the periodic table, built into mmkgc with texts, numbers and pictures",
    "licence": "MIT",
}
COUNTS = ("entities", "relations", "train", "valid", "test")

EXAMPLES = examples(
    "mmkgc datasets",
    "mmkgc datasets db15k-clean --bibtex",
)


def datasets(
    name: Annotated[str | None, typer.Argument(help="Registered graph to show in full.")] = None,
    *,
    bibtex: Annotated[bool, typer.Option("--bibtex", help="Print only the BibTeX entry.")] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the registered graphs, or show one.

    Shows counts, addresses, licence and citation.
    """
    from mmkgc_cli.errors import UsageError
    from mmkgc_cli.kg.datasets import ELEMENTS, registry, unknown_dataset

    if bibtex and as_json:
        raise UsageError(
            "--bibtex: cannot be combined with --json",
            fix="omit --bibtex; the JSON object contains the BibTeX entry",
        )
    entries = registry()
    if name is None:
        if bibtex:
            raise UsageError(
                "--bibtex: requires the name of a graph",
                fix="run for instance `mmkgc datasets db15k --bibtex`",
            )
        if as_json:
            described = {key: describe(key, entry) for key, entry in entries.items()}
            print_json({ELEMENTS: BUILT_IN, **described})
        else:
            _print_list(entries)
        return
    if name == ELEMENTS:
        if bibtex:
            raise UsageError(
                f"--bibtex: {ELEMENTS} is built in and has no paper to cite", fix="omit --bibtex"
            )
        if as_json:
            print_json(BUILT_IN)
        else:
            out.print(f"{ELEMENTS}: {BUILT_IN['title']}; {BUILT_IN['licence']} licence")
            out.print(f"prepare: mmkgc prepare {ELEMENTS}")
        return
    if name not in entries:
        raise unknown_dataset(name)
    entry = describe(name, entries[name])
    if bibtex:
        out.print(entry["bibtex"].strip())
    elif as_json:
        print_json(entry)
    else:
        _print_one(name, entry)


def describe(name: str, entry: Dataset | Variant) -> dict[str, Any]:
    """The contents of a registry entry, and whether its files are in the cache."""
    from mmkgc_cli.kg.datasets import Variant, cache_folder, published, upstream

    dataset = published(name)
    folder = cache_folder(name)
    description: dict[str, Any] = {
        "title": entry.title,
        **entry.counts,
        "fingerprint": entry.fingerprint,
        "made_from": None,
        "recipe": None,
        "format": dataset.format,
        "source": dataset.source,
        "mirrors": list(dataset.mirrors),
        "licence": dataset.licence,
        "citation": dataset.citation,
        "bibtex": dataset.bibtex,
        "sha256": dict(dataset.sha256),
        "cache": str(folder),
        "cached": all((folder / file).is_file() for file in dataset.sha256),
        "tables": {name: table.model_dump() for name, table in dataset.tables.items()},
        "upstream": {
            name: upstream()[name].model_dump()
            for name in dict.fromkeys(
                file for table in dataset.tables.values() for file in table.made_of
            )
        },
        "features": [file.model_dump() for file in dataset.features],
    }
    if isinstance(entry, Variant):
        description |= {"made_from": entry.of, "recipe": entry.recipe}
    return description


def _print_list(entries: dict[str, Dataset | Variant]) -> None:
    rows = [
        [
            name,
            *(f"{entry.counts[key]:,}" for key in COUNTS),
            "yes" if (description := describe(name, entry))["cached"] else "no",
            description["made_from"] or "",
        ]
        for name, entry in entries.items()
    ]
    header = ["graph", *COUNTS, "cached", "made from"]
    out.print(table("", header, rows))
    out.print("built in: elements; details: mmkgc datasets NAME")


def _print_one(name: str, entry: dict[str, Any]) -> None:
    counts = ", ".join(f"{entry[key]:,} {key}" for key in COUNTS)
    out.print(f"{name}: {entry['title']}")
    lines = {
        "counts": counts,
        "made from": entry["made_from"] and f"{entry['made_from']} by recipe {entry['recipe']}",
        "source": entry["source"],
        "mirrors": "\n".join(entry["mirrors"]),
        "files": "\n".join(f"{file}  sha256 {sha}" for file, sha in entry["sha256"].items()),
        "downloaded": f"yes, {entry['cache']}" if entry["cached"] else f"no ({entry['cache']})",
        "fingerprint": entry["fingerprint"],
        "licence": entry["licence"],
        "cite": entry["citation"],
    }
    for title, text in lines.items():
        for i, line in enumerate((text or "").splitlines()):
            out.print(f"  {'' if i else title:<12} {line}")
    _print_modalities(name, entry)
    out.print(entry["bibtex"].strip())
    out.print(f"prepare: mmkgc prepare {name}")


def _print_modalities(name: str, entry: dict[str, Any]) -> None:
    if entry["tables"]:
        out.print(f"texts and numbers: mmkgc texts build {name} --graph DIR")
        for table, file in entry["tables"].items():
            out.print(f"  {table} from {', '.join(file['made_of'])}")
        for upstream, file in entry["upstream"].items():
            out.print(f"  {upstream}  {file['url']}  ({file['licence']})")
    if entry["features"]:
        out.print(f"published features: mmkgc features fetch {name} MODALITY --graph DIR")
    for file in entry["features"]:
        checksum = f"sha256 {file['sha256']}" if file["sha256"] else "pinned at the first download"
        out.print(f"  {file['modality']} by {file['publisher']}: {file['file']}  {checksum}")
        lines = {
            "address": file["url"] or f"only with a browser: {file['page']}",
            "page": file["page"] if file["url"] else "",
            "rows": f"by {file['parser']} of {file['ids']}",
            "licence": file["licence"],
            "evidence": file["evidence"],
        }
        for title, text in lines.items():
            if text:
                out.print(f"    {title:<10} {text}")
