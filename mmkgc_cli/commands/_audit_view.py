"""An audit in words, for `prepare` and `audit`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

from mmkgc_cli.commands._shell import out
from mmkgc_cli.text import counted

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


class _Names:
    """What to call entities and relations: their labels where they have any."""

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
    return "" if report["graph"] in known_names() else "; prepare it with --clean to drop these"


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
            f"{names.entity(top['entity'])} {top['degree']:,}"
            for top in degrees["most_connected"][:shown]
        ),
    )
    if report["copy"] is None:
        yield "copying train scores", "nothing: there are no test triples"
    else:
        copy = {name: 100 * of["mrr"] for name, of in report["copy"].items()}
        yield (
            "copying train scores",
            f"MRR {copy['train']:.2f} % on test; with its counterparts "
            f"{copy['train_and_counterparts']:.2f} %",
        )


def _unseen(report: dict[str, Any]) -> str:
    parts = [
        f"{counted(of['triples'], f'{split} triple')} ({counted(of['entities'], 'entity')}, "
        f"{counted(of['relations'], 'relation')})"
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
                names.relation(pair["first"])
                + ("" if kind == "symmetric" else f" / {names.relation(pair['second'])}")
                + f" ({100 * min(pair['share'], pair['share_back']):.0f} %)"
                for pair in found[:shown]
            ]
            more = f", {len(found) - shown} more" if len(found) > shown else ""
            yield f"{kind} relations", f"{len(found)}: {', '.join(said)}{more}"
    yield (
        "read off train by these",
        ", ".join(counted(count, f"{split} triple") for split, count in report["answered"].items()),
    )
