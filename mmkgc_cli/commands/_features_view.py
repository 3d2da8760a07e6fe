"""How feature stores are printed."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmkgc_cli.commands._shell import out, printable
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from mmkgc_cli.features.checks import StoreCheck
    from mmkgc_cli.features.importing import Imported
    from mmkgc_cli.features.store import FeatureStore
    from mmkgc_cli.kg.graph import Graph

_KINDS = {
    "not_finite": "not finite",
    "zero": "all zero",
    "constant": "one value in every column",
    "duplicate": "equal to an earlier row",
    "mean_filled": "at the mean of the others, so probably filled in",
    "leftover": "without a vector, yet not zero",
}


def store_object(store: FeatureStore, graph: Graph | None) -> dict[str, Any]:
    """What a store says of itself, and how it fits a graph, as plain JSON."""
    about: dict[str, Any] = {
        "path": str(store.path),
        "rows": store.n,
        "width": store.width,
        "dtype": store.dtype.name,
        "compression": store.compression,
        "observed": int(store.observed.sum()),
        "generated": 0 if store.generated is None else int(store.generated.sum()),
        "missing": int((~store.present).sum()),
        "sha256": store.seal.sha256,
        "entities_id": store.entities_id,
        **store.about.as_object(),
        "fit": None,
    }
    if graph is not None:
        about["fit"] = _fit(store, graph)
    return about


def _fit(store: FeatureStore, graph: Graph) -> dict[str, Any]:
    from mmkgc_cli.errors import DataError
    from mmkgc_cli.features.alignment import align

    try:
        coverage = align(store, graph).coverage()
    except DataError as error:
        return {"graph": graph.name, "fits": False, "reason": str(error)}
    return {"graph": graph.name, "fits": True, **coverage}


def print_store(about: dict[str, Any]) -> None:
    """Prints what `store_object` made."""
    packed = f", {about['compression']}" if about["compression"] else ""
    out.print(
        f"{printable(about['path'])}: {about['modality']}, {counted(about['rows'], 'row')} of "
        f"{about['width']:,} {about['dtype']}{packed}"
    )
    generated = f", {about['generated']:,} generated" if about["generated"] else ""
    share = about["observed"] / about["rows"]
    out.print(
        f"  observed {about['observed']:,} ({share:.1%}){generated}, without a vector "
        f"{about['missing']:,}"
    )
    for name in ("encoder", "revision", "preprocess", "pooling", "graph", "source"):
        out.print(f"  {name:<10} {printable(about[name]) or '(not said)'}")
    for name in ("mask", "completion"):
        if about[name]:
            values = ", ".join(f"{key} {value}" for key, value in about[name].items())
            out.print(f"  {name:<10} {printable(values)}")
    for note in about["notes"]:
        out.print(f"  {printable(note)}")
    if fit := about["fit"]:
        if fit["fits"]:
            share = (fit["entities"] - fit["missing"]) / max(1, fit["entities"])
            out.print(
                f"  covers {share:.1%} of {counted(fit['entities'], 'entity')} of "
                f"{printable(fit['graph'])}, {fit['order']}; ids outside: {fit['other_ids']:,}"
            )
        else:
            out.print(f"  does not fit: {printable(fit['reason'])}")


def print_check(found: StoreCheck) -> None:
    """Prints what a check found."""
    for name, finding in found.findings().items():
        if finding.count:
            examples = ", ".join(map(printable, finding.examples))
            more = ", …" if finding.count > len(finding.examples) else ""
            out.print(f"  {counted(finding.count, 'row')} {_KINDS[name]} ({examples}{more})")
    if found.groups:
        out.print(
            f"  {counted(found.groups, 'group')} of equal rows, the largest of "
            f"{found.largest_group:,}"
        )
    if found.constant_columns:
        out.print(f"  {counted(found.constant_columns, 'column')} the same in every row")
    if found.norms:
        low, mean, high = (found.norms[name] for name in ("min", "mean", "max"))
        out.print(f"  norms {low:.4g} to {high:.4g}, {mean:.4g} on average")
    if not any(finding.count for finding in found.findings().values()):
        out.print("  nothing suspicious")


def print_imported(
    done: Imported, zero_is_missing: bool, nan_is_missing: bool, graph: Graph | None
) -> None:
    """Prints what came of an import."""
    out.print(
        f"{counted(done.rows, 'row')} of {done.width:,} {done.dtype}, {done.observed:,} observed"
    )
    if done.zero:
        fate = "now unobserved" if zero_is_missing else "taken for observed; see --zero-is-missing"
        out.print(f"  {counted(done.zero, 'row')} all zero: {fate}")
    if done.not_finite and nan_is_missing:
        out.print(f"  {counted(done.not_finite, 'row')} not finite: now unobserved")
    if graph is not None and done.without_row:
        out.print(
            f"  {counted(done.without_row, 'entity')} of {printable(graph.name)} without a row: "
            "unobserved"
        )
    if done.outside:
        out.print(
            f"  {counted(done.outside, 'id')} that are no entity of it, such as "
            f"{printable(done.outside_example)!r}, kept at the end"
        )
