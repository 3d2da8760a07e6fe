"""The printed form of an audit, for `prepare` and `audit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmkgc_cli.commands._shell import out
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from mmkgc_cli.kg.graph import Graph

_SHOWN = 3  # relation pairs and entities listed in a summary
_WIDTH = 22


def print_audit(report: dict[str, Any], graph: Graph, shown: int = _SHOWN) -> None:
    """Prints an audit as a block of lines, problems first."""
    verdict = "clean" if report["clean"] else "NOT clean"
    out.print(f"audit: {verdict}{_advice(report)}")
    for title, text in _lines(report, _Names(graph), shown):
        out.print(f"  {title:<{_WIDTH}} {text}")


class _Names:
    """Functions from names of entities and relations to their labels, or else their names."""

    def __init__(self, graph: Graph) -> None:
        self.entity = _labels(graph.entities, graph.entity_labels)
        self.relation = _labels(graph.relations, graph.relation_labels)


def _labels(names: Sequence[str], labels: Sequence[str] | None) -> Callable[[str], str]:
    if labels is None:
        return str
    table = dict(zip(names, labels, strict=True))
    return lambda name: table.get(name, name)


def _advice(report: dict[str, Any]) -> str:
    from mmkgc_cli.kg.datasets import known_names, registered_variant

    if report["clean"]:
        return ""
    variant = registered_variant(report["graph"])
    if variant is not None:
        return f"; {variant} is the clean variant"
    return (
        "" if report["graph"] in known_names() else "; prepare it with --clean to drop these rows"
    )


def _lines(report: dict[str, Any], names: _Names, shown: int) -> Iterator[tuple[str, str]]:
    for i, problem in enumerate(report["problems"]):
        yield ("" if i else "problems"), problem
    if report["problems"]:
        yield (
            "after cleaning",
            ", ".join(
                f"{kept['rows']:,} {split}"
                + (f" ({kept['seen']:,} with both entities in train)" if split != "train" else "")
                for split, kept in report["after_cleaning"].items()
            ),
        )
    yield "unseen in train", _unseen(report)
    yield "isolated entities", f"{report['isolated']:,}"
    yield (
        "relations",
        ", ".join(
            f"{name}: {category['relations']} ({category['train']:,} train triples)"
            for name, category in report["categories"].items()
            if category["relations"]
        ),
    )
    yield from _pairs(report, names, shown)
    degrees = report["degrees"]
    yield (
        "degree in train",
        f"mean {degrees['mean']:.1f}, median {degrees['median']:.0f}, 99 % up to "
        f"{degrees['p99']:.0f}, highest "
        + ", ".join(
            f"{names.entity(entry['entity'])} {entry['degree']:,}"
            for entry in degrees["most_connected"][:shown]
        ),
    )
    if report["copy"] is None:
        yield "copying train scores", "none: there are no test triples"
    else:
        copy = {name: 100 * metrics["mrr"] for name, metrics in report["copy"].items()}
        yield (
            "copying train scores",
            f"MRR {copy['train']:.2f} % on test; with counterparts "
            f"{copy['train_and_counterparts']:.2f} %",
        )


def _unseen(report: dict[str, Any]) -> str:
    parts = [
        f"{counted(unseen['triples'], f'{split} triple')} "
        f"({counted(unseen['entities'], 'entity')}, {counted(unseen['relations'], 'relation')})"
        for split, unseen in report["unseen"].items()
        if unseen["triples"]
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
    for pattern in ("symmetric", "inverse", "equivalent"):
        matches = [pair for pair in pairs if pair["kind"] == pattern]
        if matches:
            phrases = [
                names.relation(pair["first"])
                + ("" if pattern == "symmetric" else f" / {names.relation(pair['second'])}")
                + f" ({100 * min(pair['share'], pair['share_back']):.0f} %)"
                for pair in matches[:shown]
            ]
            suffix = f", {len(matches) - shown} more" if len(matches) > shown else ""
            yield f"{pattern} relations", f"{len(matches)}: {', '.join(phrases)}{suffix}"
    yield (
        "answered by these",
        ", ".join(counted(count, f"{split} triple") for split, count in report["answered"].items()),
    )
