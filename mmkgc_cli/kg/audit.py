"""What is in a graph, and what is wrong with it, as plain numbers.

Every number here follows from the triples alone; `runs.audit` adds what copying train would score,
and keeps the result beside the graph.
"""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.kg.categories import CATEGORIES, relation_categories
from mmkgc_cli.kg.cleaning import clean_rows
from mmkgc_cli.kg.graph import SPLITS, Graph
from mmkgc_cli.kg.relation_pairs import (
    RelationPair,
    answered,
    relation_pairs,
    reversed_in_train,
)
from mmkgc_cli.kg.triples import Keys, contained, distinct_keys
from mmkgc_cli.text import counted

AUDIT_VERSION = 1
_OVERLAPS = (("valid", "train"), ("valid", "test"), ("test", "train"))
_QUANTILES = {"min": 0, "q25": 0.25, "median": 0.5, "q75": 0.75, "p90": 0.9, "p99": 0.99, "max": 1}
_MOST_CONNECTED = 5


REQUIRED = (
    "version", "graph", "fingerprint", "clean", "problems", "counts", "duplicates", "overlaps",
    "after_cleaning", "unseen", "isolated", "categories", "relations", "relation_pairs",
    "answered", "reversed", "degrees",
)  # fmt: skip


def problems(duplicates: dict[str, int], leaks: dict[str, int]) -> list[str]:
    """What makes results on a graph mean less than they seem to; a graph without any is clean.

    Args:
        duplicates: rows of each split that repeat an earlier one (`Graph.duplicates`).
        leaks: rows of one split that another holds, by ``valid_in_train`` (`Graph.leaks`).
    """
    found = [
        f"{counted(count, f'{split} row')} {'repeats' if count == 1 else 'repeat'} an earlier one"
        for split, count in duplicates.items()
        if count
    ]
    for name, count in leaks.items():
        split, _, other = name.partition("_in_")
        if count:
            is_or_are = "is" if count == 1 else "are"
            found.append(f"{counted(count, f'{split} row')} {is_or_are} also in {other}")
    return found


def audit_graph(graph: Graph) -> tuple[dict[str, Any], list[RelationPair] | None]:
    """The audit of a graph, ready for JSON, and its relation pairs.

    Rows are as they stand in the files, triples are distinct ones.

    - ``duplicates``: rows of a split beyond the first of each triple.
    - ``overlaps``: rows and triples of a split that another one holds too.
    - ``after_cleaning``: what `clean_rows` would keep, and how much of it has both entities and
      the relation in train.
    - ``unseen``: triples whose entity or relation train lacks; entities and relations so concerned.
    - ``isolated``: entities that no split uses.
    - ``relations``: each with its category, triples, distinct heads and tails in train.
    - ``relation_pairs``: symmetric, inverse and equivalent ones (None where there were too many to
      compare); ``answered``: rows that have their counterpart in train; ``reversed``: rows with any
      train triple between their entities the other way round.
    - ``degrees``: of entities in train, and the most connected ones.
    """
    keys = {split: graph.keys(split) for split in SPLITS}
    distinct = {split: distinct_keys(of) for split, of in keys.items()}
    duplicates = {split: len(of) - len(distinct[split]) for split, of in keys.items()}
    overlaps = {f"{a}_in_{b}": _overlap(keys[a], distinct[b]) for a, b in _OVERLAPS}
    pairs = relation_pairs(graph)
    category = relation_categories(graph.train, len(graph.entities), len(graph.relations))
    triples_unseen = graph.unseen()
    found = problems(duplicates, {name: of["rows"] for name, of in overlaps.items()})
    report = {
        "version": AUDIT_VERSION,
        "graph": graph.name,
        "fingerprint": graph.fingerprint,
        "clean": not found,
        "problems": found,
        "counts": graph.counts,
        "duplicates": duplicates,
        "overlaps": overlaps,
        "after_cleaning": _after_cleaning(graph),
        "unseen": {
            split: {"triples": triples_unseen[split], **_unseen_names(graph, split)}
            for split in ("valid", "test")
        },
        "isolated": int((~graph.occurring()[0]).sum()),
        "categories": _categories(graph, category),
        "relations": _relations(graph, category),
        "relation_pairs": None
        if pairs is None
        else [_named(graph, pair, distinct["train"]) for pair in pairs],
        "answered": {
            split: int(answered(graph, graph.splits[split], pairs or [], distinct["train"]).sum())
            for split in ("valid", "test")
        },
        "reversed": {
            split: int(reversed_in_train(graph, graph.splits[split]).sum())
            for split in ("valid", "test")
        },
        "degrees": _degrees(graph),
    }
    return report, pairs


def _overlap(few: Keys, many: Keys) -> dict[str, int]:
    inside = few[contained(few, many)]
    return {"rows": len(inside), "triples": len(distinct_keys(inside))}


def _after_cleaning(graph: Graph) -> dict[str, dict[str, int]]:
    keep = clean_rows(graph)
    entities, relations = graph.seen()
    left = {split: rows[keep[split]] for split, rows in graph.splits.items()}
    return {
        split: {
            "rows": len(rows),
            "seen": int((entities[rows[:, [0, 2]]].all(axis=1) & relations[rows[:, 1]]).sum()),
        }
        for split, rows in left.items()
    }


def _unseen_names(graph: Graph, split: str) -> dict[str, int]:
    rows = graph.splits[split]
    seen_entities, seen_relations = graph.seen()
    entities, relations = np.unique(rows[:, [0, 2]]), np.unique(rows[:, 1])
    return {
        "entities": int((~seen_entities[entities]).sum()),
        "relations": int((~seen_relations[relations]).sum()),
    }


def _categories(graph: Graph, of: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    used = graph.occurring()[1]
    return {
        name: {
            "relations": int(((of == i) & used).sum()),
            **{split: int((of[rows[:, 1]] == i).sum()) for split, rows in graph.splits.items()},
        }
        for i, name in enumerate(CATEGORIES)
    }


def _relations(graph: Graph, category: NDArray[np.int64]) -> list[dict[str, Any]]:
    n, n_relations = len(graph.entities), len(graph.relations)

    def per_relation(column: int) -> Any:
        ends = distinct_keys(graph.train[:, 1].astype(np.int64) * n + graph.train[:, column])
        return np.bincount(ends // n, minlength=n_relations)

    heads, tails = per_relation(0), per_relation(2)
    rows = {s: np.bincount(of[:, 1], minlength=n_relations) for s, of in graph.splits.items()}
    return [
        {
            "relation": graph.relations[i],
            "category": CATEGORIES[category[i]],
            **{split: int(counts[i]) for split, counts in rows.items()},
            "heads": int(heads[i]),
            "tails": int(tails[i]),
        }
        for i in range(n_relations)
    ]


def _named(graph: Graph, pair: RelationPair, train: Keys) -> dict[str, Any]:
    entry = dataclasses.asdict(pair)
    entry["first"], entry["second"] = graph.relations[pair.first], graph.relations[pair.second]
    entry["share"], entry["share_back"] = round(pair.share, 4), round(pair.share_back, 4)
    for split in ("valid", "test"):
        rows = graph.splits[split]
        rows = rows[np.isin(rows[:, 1], [pair.first, pair.second])]
        entry[f"answered_{split}"] = int(answered(graph, rows, [pair], train).sum())
    return entry


def _degrees(graph: Graph) -> dict[str, Any]:
    degree = np.bincount(graph.train[:, [0, 2]].ravel(), minlength=len(graph.entities))
    # How many entities have degree 0, 1, 2-3, 4-7, ...
    bins = np.bincount(np.ceil(np.log2(degree + 1)).astype(np.int64))
    edges = [0, *(2**i for i in range(len(bins)))]
    top = np.argsort(-degree, kind="stable")[:_MOST_CONNECTED]
    return {
        "mean": round(float(degree.mean()), 4),
        **{name: round(float(np.quantile(degree, q)), 4) for name, q in _QUANTILES.items()},
        "histogram": [
            {"from": int(edges[i]), "to": int(max(edges[i], edges[i + 1] - 1)), "entities": count}
            for i, count in enumerate(bins.tolist())
        ],
        "most_connected": [
            {"entity": graph.entities[i], "degree": int(degree[i])} for i in top.tolist()
        ],
    }
