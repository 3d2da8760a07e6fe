"""An audit in words, for `prepare` and `audit`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from mmkgc_cli.commands._shell import out

if TYPE_CHECKING:
    from mmkgc_cli.kg.graph import Graph

_SHOWN = 3  # relation pairs and entities named in a summary
_WIDTH = 22


def print_audit(report: dict[str, Any], graph: Graph, shown: int = _SHOWN) -> None:
    """Prints an audit as a block of lines, the problems first."""
    verdict = "clean" if report["clean"] else "NOT clean"
    out.print(f"audit: {verdict}{_advice(report)}")
    for title, text in _lines(report, _Names(graph), shown):
        out.print(f"  {title:<{_WIDTH}} {text}")


def _n(count: int, noun: str) -> str:
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else plural}"


class _Names:
    """What to call an entity or a relation: its label where it has one."""

    def __init__(self, graph: Graph) -> None:
        self._labels: dict[str, str] = {}
        for names, labels in (
            (graph.entities, graph.entity_labels),
            (graph.relations, graph.relation_labels),
        ):
            if labels is not None:
                self._labels |= dict(zip(names, labels, strict=True))

    def of(self, name: str) -> str:
        return self._labels.get(name, name)


def _advice(report: dict[str, Any]) -> str:
    from mmkgc_cli.kg.datasets import registered_variant

    variant = registered_variant(report["graph"])
    return "" if report["clean"] or variant is None else f"; {variant} is the clean variant"


def _lines(report: dict[str, Any], names: _Names, shown: int) -> Iterator[tuple[str, str]]:
    for i, problem in enumerate(report["problems"]):
        yield ("" if i else "problems"), problem
    if report["problems"]:
        left = report["after_cleaning"]
        yield (
            "after cleaning",
            ", ".join(
                f"{of['rows']:,} {split}"
                + (f" ({of['seen']:,} with both entities in train)" if split != "train" else "")
                for split, of in left.items()
            ),
        )
    yield "unseen in train", _unseen(report)
    yield "isolated entities", f"{report['isolated']:,}"
    yield (
        "relations",
        ", ".join(
            f"{name}: {of['relations']} ({of['train']:,} train triples)"
            for name, of in report["categories"].items()
            if of["relations"]
        ),
    )
    yield from _pairs(report, names, shown)
    degrees = report["degrees"]
    yield (
        "degree in train",
        f"mean {degrees['mean']:.1f}, median {degrees['median']:.0f}, 99 % up to "
        f"{degrees['p99']:.0f}, most "
        + ", ".join(
            f"{names.of(top['entity'])} {top['degree']:,}"
            for top in degrees["most_connected"][:shown]
        ),
    )
    if report["copy"] is not None:
        copy = {name: 100 * of["mrr"] for name, of in report["copy"].items()}
        yield (
            "copying train scores",
            f"MRR {copy['train']:.2f} % on test; with its counterparts "
            f"{copy['train_and_counterparts']:.2f} %",
        )


def _unseen(report: dict[str, Any]) -> str:
    parts = [
        f"{_n(of['triples'], f'{split} triple')} ({_n(of['entities'], 'entity')}, "
        f"{_n(of['relations'], 'relation')})"
        for split, of in report["unseen"].items()
        if of["triples"]
    ]
    return ", ".join(parts) or "none"


def _pairs(report: dict[str, Any], names: _Names, shown: int) -> Iterator[tuple[str, str]]:
    pairs = report["relation_pairs"]
    if pairs is None:
        yield "relation pairs", "not compared: too many relations between the same entities"
        return
    if not pairs:
        yield "relation pairs", "none symmetric, inverse or equivalent"
        return
    for kind in ("symmetric", "inverse", "equivalent"):
        found = [pair for pair in pairs if pair["kind"] == kind]
        if found:
            said = [
                names.of(pair["first"])
                + ("" if kind == "symmetric" else f" / {names.of(pair['second'])}")
                + f" ({100 * min(pair['share'], pair['share_back']):.0f} %)"
                for pair in found[:shown]
            ]
            more = f", {len(found) - shown} more" if len(found) > shown else ""
            yield f"{kind} relations", f"{len(found)}: {', '.join(said)}{more}"
    yield (
        "read off train by these",
        ", ".join(_n(count, f"{split} triple") for split, count in report["answered"].items()),
    )
