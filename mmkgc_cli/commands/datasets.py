"""``mmkgc datasets``: the benchmarks that `mmkgc prepare NAME` knows."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkgc_cli.commands._shell import JsonFlag, out, print_json, table

if TYPE_CHECKING:
    from mmkgc_cli.kg.datasets import Dataset, Variant

BUILT_IN = {
    "title": "the periodic table, built into mmkgc with texts, numbers and pictures",
    "licence": "MIT",
}
COUNTS = ("entities", "relations", "train", "valid", "test")


def datasets(
    name: Annotated[str | None, typer.Argument(help="One of them, in full.")] = None,
    bibtex: Annotated[
        bool, typer.Option("--bibtex", help="Print the BibTeX entry and nothing else.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """List the registered graphs, or show one: counts, addresses, licence and citation."""
    from mmkgc_cli.errors import UsageError
    from mmkgc_cli.kg.datasets import ELEMENTS, registry, unknown_dataset

    if bibtex and as_json:
        raise UsageError("--bibtex: prints no JSON; --json alone holds the BibTeX entry too")
    entries = registry()
    if name is None:
        if bibtex:
            raise UsageError("--bibtex: say of which graph, for instance mmkgc datasets db15k")
        if as_json:
            described = {key: describe(key, entry) for key, entry in entries.items()}
            print_json({ELEMENTS: BUILT_IN, **described})
        else:
            _print_list(entries)
        return
    if name == ELEMENTS:
        if bibtex:
            raise UsageError("--bibtex: elements is built in and has no paper to cite")
        if as_json:
            print_json(BUILT_IN)
        else:
            out.print(f"{ELEMENTS}: {BUILT_IN['title']}; {BUILT_IN['licence']} licence")
            out.print(f"prepare it: mmkgc prepare {ELEMENTS}")
        return
    if name not in entries:
        raise unknown_dataset(name)
    about = describe(name, entries[name])
    if bibtex:
        out.print(about["bibtex"].strip())
    elif as_json:
        print_json(about)
    else:
        _print_one(name, about)


def describe(name: str, entry: Dataset | Variant) -> dict[str, Any]:
    """Everything the registry says of an entry, and whether its files are in the cache."""
    from mmkgc_cli.kg.datasets import Variant, cache_folder, published, upstream

    dataset = published(name)
    folder = cache_folder(name)
    about: dict[str, Any] = {
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
            for name in dict.fromkeys(n for t in dataset.tables.values() for n in t.made_of)
        },
        "features": [file.model_dump() for file in dataset.features],
    }
    if isinstance(entry, Variant):
        about |= {"made_from": entry.of, "recipe": entry.recipe}
    return about


def _print_list(entries: dict[str, Dataset | Variant]) -> None:
    rows = [
        [
            name,
            *(f"{entry.counts[key]:,}" for key in COUNTS),
            "yes" if (about := describe(name, entry))["cached"] else "no",
            about["made_from"] or "",
        ]
        for name, entry in entries.items()
    ]
    header = ["graph", *COUNTS, "cached", "made from"]
    out.print(table("", header, rows))
    out.print("and elements, which is built in; mmkgc datasets NAME says more")


def _print_one(name: str, about: dict[str, Any]) -> None:
    counts = ", ".join(f"{about[key]:,} {key}" for key in COUNTS)
    out.print(f"{name}: {about['title']}")
    lines = {
        "counts": counts,
        "made from": about["made_from"] and f"{about['made_from']} by recipe {about['recipe']}",
        "source": about["source"],
        "mirrors": "\n".join(about["mirrors"]),
        "files": "\n".join(f"{file}  sha256 {sha}" for file, sha in about["sha256"].items()),
        "downloaded": f"yes, {about['cache']}" if about["cached"] else f"no ({about['cache']})",
        "fingerprint": about["fingerprint"],
        "licence": about["licence"],
        "cite": about["citation"],
    }
    for title, text in lines.items():
        for i, line in enumerate((text or "").splitlines()):
            out.print(f"  {'' if i else title:<12} {line}")
    _print_modalities(name, about)
    out.print(about["bibtex"].strip())
    out.print(f"prepare it: mmkgc prepare {name}")


def _print_modalities(name: str, about: dict[str, Any]) -> None:
    if about["tables"]:
        out.print(f"texts and numbers: mmkgc texts build {name} --graph DIR")
        for table, file in about["tables"].items():
            out.print(f"  {table} from {', '.join(file['made_of'])}")
        for upstream, file in about["upstream"].items():
            out.print(f"  {upstream}  {file['url']}  ({file['licence']})")
    if about["features"]:
        out.print(f"published features: mmkgc features fetch {name} MODALITY --graph DIR")
    for file in about["features"]:
        checksum = f"sha256 {file['sha256']}" if file["sha256"] else "pinned at first use"
        out.print(f"  {file['modality']} by {file['publisher']}: {file['file']}  {checksum}")
        lines = {
            "address": file["url"] or f"none without a browser; {file['page']}",
            "page": file["page"] if file["url"] else "",
            "rows": f"by {file['parser']} of {file['ids']}",
            "licence": file["licence"],
            "evidence": file["evidence"],
        }
        for title, text in lines.items():
            if text:
                out.print(f"    {title:<10} {text}")
