"""Printing of feature stores, checks and imports."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmkgc_cli.commands._shell import out, printable
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from mmkgc_cli.features.checks import StoreCheck
    from mmkgc_cli.features.importing import ImportResult
    from mmkgc_cli.features.store import FeatureStore
    from mmkgc_cli.kg.graph import Graph

_KINDS = {
    "not_finite": "not finite",
    "zero": "all zero",
    "constant": "one value in every column",
    "duplicate": "equal to an earlier row",
    "mean_filled": "at the mean of the others, probably filled",
    "leftover": "without a vector but not zero",
}


def store_object(store: FeatureStore, graph: Graph | None) -> dict[str, Any]:
    """Counts, metadata and coverage of a graph, as plain JSON."""
    summary: dict[str, Any] = {
        "path": str(store.path),
        "rows": store.n,
        "width": store.width,
        "dtype": store.dtype.name,
        "compression": store.compression,
        "observed": int(store.observed.sum()),
        "generated": 0 if store.generated is None else int(store.generated.sum()),
        "missing": int((~store.present).sum()),
        "sha256": store.checksums.sha256,
        "entities_id": store.entities_id,
        **store.metadata.as_object(),
        "fit": None,
    }
    if graph is not None:
        summary["fit"] = _fit(store, graph)
    return summary


def _fit(store: FeatureStore, graph: Graph) -> dict[str, Any]:
    from mmkgc_cli.errors import DataError
    from mmkgc_cli.features.alignment import align

    try:
        coverage = align(store, graph).coverage()
    except DataError as error:
        return {"graph": graph.name, "fits": False, "reason": str(error)}
    return {"graph": graph.name, "fits": True, **coverage}


def print_store(summary: dict[str, Any]) -> None:
    """Prints the result of `store_object`."""
    packed = f", {summary['compression']}" if summary["compression"] else ""
    out.print(
        f"{printable(summary['path'])}: {summary['modality']}, "
        f"{counted(summary['rows'], 'row')} of {summary['width']:,} {summary['dtype']}{packed}"
    )
    generated = f", {summary['generated']:,} generated" if summary["generated"] else ""
    share = summary["observed"] / summary["rows"]
    out.print(
        f"  observed {summary['observed']:,} ({share:.1%}){generated}, without a vector "
        f"{summary['missing']:,}"
    )
    for name in ("encoder", "revision", "preprocess", "pooling", "graph", "source"):
        out.print(f"  {name:<10} {printable(summary[name]) or '(unknown)'}")
    for name in ("mask", "completion"):
        if summary[name]:
            values = ", ".join(f"{key} {value}" for key, value in summary[name].items())
            out.print(f"  {name:<10} {printable(values)}")
    for note in summary["notes"]:
        out.print(f"  {printable(note)}")
    if fit := summary["fit"]:
        if fit["fits"]:
            share = (fit["entities"] - fit["missing"]) / max(1, fit["entities"])
            out.print(
                f"  covers {share:.1%} of {counted(fit['entities'], 'entity')} of "
                f"{printable(fit['graph'])}, {fit['order']}; ids outside: {fit['other_ids']:,}"
            )
        else:
            out.print(f"  does not fit: {printable(fit['reason'])}")


def print_check(check: StoreCheck) -> None:
    """Prints the result of a check."""
    for name, finding in check.problems().items():
        if finding.count:
            examples = ", ".join(map(printable, finding.examples))
            more = ", …" if finding.count > len(finding.examples) else ""
            out.print(f"  {counted(finding.count, 'row')} {_KINDS[name]} ({examples}{more})")
    if check.groups:
        out.print(
            f"  {counted(check.groups, 'group')} of equal rows, the largest of "
            f"{check.largest_group:,}"
        )
    if check.constant_columns:
        out.print(f"  {counted(check.constant_columns, 'column')} the same in every row")
    if check.norms:
        low, mean, high = (check.norms[name] for name in ("min", "mean", "max"))
        out.print(f"  norms {low:.4g} to {high:.4g}, {mean:.4g} on average")
    if not any(finding.count for finding in check.problems().values()):
        out.print("  no suspicious rows")


def print_imported(
    result: ImportResult, zero_is_missing: bool, nan_is_missing: bool, graph: Graph | None
) -> None:
    """Prints the counts of an import."""
    out.print(
        f"{counted(result.rows, 'row')} of {result.width:,} {result.dtype}, "
        f"{result.observed:,} observed"
    )
    if result.zero:
        state = (
            "now unobserved" if zero_is_missing else "counted as observed; see --zero-is-missing"
        )
        out.print(f"  {counted(result.zero, 'row')} all zero: {state}")
    if result.not_finite and nan_is_missing:
        out.print(f"  {counted(result.not_finite, 'row')} not finite: now unobserved")
    if graph is not None and result.without_row:
        out.print(
            f"  {counted(result.without_row, 'entity')} of {printable(graph.name)} without a row: "
            "unobserved"
        )
    if result.outside:
        out.print(
            f"  {counted(result.outside, 'id')} not in the graph, such as "
            f"{printable(result.outside_example)!r}, kept at the end"
        )
