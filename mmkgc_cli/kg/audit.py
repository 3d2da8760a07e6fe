"""The audit of a graph: counts, duplicates, overlaps, unseen names, relation patterns, degrees.

All numbers are computed from the triples alone. `runs.audit` adds the score of copying train and
stores the result beside the graph.
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
    """Describes the duplicates and overlaps that distort results; a graph without any is clean.

    Args:
        duplicates: rows of each split that repeat an earlier one (`Graph.duplicates`).
        leaks: rows of one split that another one contains, by ``valid_in_train`` (`Graph.leaks`).
    """
    lines = [
        f"{counted(count, f'{split} row')} {'repeats' if count == 1 else 'repeat'} an earlier one"
        for split, count in duplicates.items()
        if count
    ]
    for name, count in leaks.items():
        split, _, other = name.partition("_in_")
        if count:
            is_or_are = "is" if count == 1 else "are"
            lines.append(f"{counted(count, f'{split} row')} {is_or_are} also in {other}")
    return lines


def audit_graph(graph: Graph) -> tuple[dict[str, Any], list[RelationPair] | None]:
    """Computes the audit of a graph, ready for JSON, and its relation pairs.

    Rows are counted as in the files; triples are counted once.

    - ``duplicates``: rows of a split that repeat an earlier row.
    - ``overlaps``: rows and triples of one split that another split also contains.
    - ``after_cleaning``: rows that `clean_rows` keeps (``rows``), and how many of them have both
      entities and the relation in train (``seen``).
    - ``unseen``: triples with an entity or a relation that train does not contain, and the number
      of these entities and relations.
    - ``isolated``: entities that no split contains.
    - ``relations``: category, triples, and distinct heads and tails in train of each relation.
    - ``relation_pairs``: symmetric, inverse and equivalent pairs (None when there are too many
      candidates to compare); ``answered``: rows with a counterpart in train; ``reversed``: rows
      with any train triple from their tail to their head.
    - ``degrees``: degrees of the entities in train, and the most connected entities.
    """
    keys = {split: graph.keys(split) for split in SPLITS}
    distinct = {split: distinct_keys(split_keys) for split, split_keys in keys.items()}
    duplicates = {split: len(keys[split]) - len(distinct[split]) for split in SPLITS}
    overlaps = {f"{a}_in_{b}": _overlap(keys[a], distinct[b]) for a, b in _OVERLAPS}
    pairs = relation_pairs(graph)
    categories = relation_categories(graph.train, len(graph.entities), len(graph.relations))
    unseen_triples = graph.unseen()
    leaks = {name: overlap["rows"] for name, overlap in overlaps.items()}
    problem_lines = problems(duplicates, leaks)
    report = {
        "version": AUDIT_VERSION,
        "graph": graph.name,
        "fingerprint": graph.fingerprint,
        "clean": not problem_lines,
        "problems": problem_lines,
        "counts": graph.counts,
        "duplicates": duplicates,
        "overlaps": overlaps,
        "after_cleaning": _after_cleaning(graph),
        "unseen": {
            split: {"triples": unseen_triples[split], **_unseen_names(graph, split)}
            for split in ("valid", "test")
        },
        "isolated": int((~graph.occurring()[0]).sum()),
        "categories": _categories(graph, categories),
        "relations": _relations(graph, categories),
        "relation_pairs": None
        if pairs is None
        else [_pair_entry(graph, pair, distinct["train"]) for pair in pairs],
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
    shared = few[contained(few, many)]
    return {"rows": len(shared), "triples": len(distinct_keys(shared))}


def _after_cleaning(graph: Graph) -> dict[str, dict[str, int]]:
    keep = clean_rows(graph)
    entities, relations = graph.seen()
    kept = {split: rows[keep[split]] for split, rows in graph.splits.items()}
    return {
        split: {
            "rows": len(rows),
            "seen": int((entities[rows[:, [0, 2]]].all(axis=1) & relations[rows[:, 1]]).sum()),
        }
        for split, rows in kept.items()
    }


def _unseen_names(graph: Graph, split: str) -> dict[str, int]:
    rows = graph.splits[split]
    seen_entities, seen_relations = graph.seen()
    entities, relations = np.unique(rows[:, [0, 2]]), np.unique(rows[:, 1])
    return {
        "entities": int((~seen_entities[entities]).sum()),
        "relations": int((~seen_relations[relations]).sum()),
    }


def _categories(graph: Graph, categories: NDArray[np.int64]) -> dict[str, dict[str, int]]:
    used = graph.occurring()[1]
    return {
        name: {
            "relations": int(((categories == i) & used).sum()),
            **{
                split: int((categories[rows[:, 1]] == i).sum())
                for split, rows in graph.splits.items()
            },
        }
        for i, name in enumerate(CATEGORIES)
    }


def _relations(graph: Graph, categories: NDArray[np.int64]) -> list[dict[str, Any]]:
    n, n_relations = len(graph.entities), len(graph.relations)

    def per_relation(column: int) -> Any:
        ends = distinct_keys(graph.train[:, 1].astype(np.int64) * n + graph.train[:, column])
        return np.bincount(ends // n, minlength=n_relations)

    heads, tails = per_relation(0), per_relation(2)
    counts = {
        split: np.bincount(rows[:, 1], minlength=n_relations)
        for split, rows in graph.splits.items()
    }
    return [
        {
            "relation": graph.relations[i],
            "category": CATEGORIES[categories[i]],
            **{split: int(per_split[i]) for split, per_split in counts.items()},
            "heads": int(heads[i]),
            "tails": int(tails[i]),
        }
        for i in range(n_relations)
    ]


def _pair_entry(graph: Graph, pair: RelationPair, train: Keys) -> dict[str, Any]:
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
    # Number of entities with degree 0, 1, 2-3, 4-7, ...
    bins = np.bincount(np.ceil(np.log2(degree + 1)).astype(np.int64))
    edges = [0, *(2**i for i in range(len(bins)))]
    most_connected = np.argsort(-degree, kind="stable")[:_MOST_CONNECTED]
    return {
        "mean": round(float(degree.mean()), 4),
        **{name: round(float(np.quantile(degree, q)), 4) for name, q in _QUANTILES.items()},
        "histogram": [
            {"from": int(edges[i]), "to": int(max(edges[i], edges[i + 1] - 1)), "entities": count}
            for i, count in enumerate(bins.tolist())
        ],
        "most_connected": [
            {"entity": graph.entities[i], "degree": int(degree[i])} for i in most_connected.tolist()
        ],
    }
