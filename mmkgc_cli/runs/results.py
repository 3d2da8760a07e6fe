"""Contents of ``results.json`` and of the table of ranks."""

from __future__ import annotations

import io
from collections.abc import Mapping
from typing import Any

import numpy as np

from mmkgc_cli import __version__
from mmkgc_cli.evaluation.metrics import grouped_metrics, side_metrics
from mmkgc_cli.evaluation.ranks import SideRanks
from mmkgc_cli.kg.audit import problems
from mmkgc_cli.kg.categories import CATEGORIES, relation_categories
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.scoring import Side

RESULTS_VERSION = 1


def protocol(graph: Graph, sample: int = 0) -> dict[str, Any]:
    """How metrics were computed; results with different protocols are not comparable.

    `sample` is the number of valid triples that selected the weights; 0 for all.
    """
    leaks, duplicates = graph.leaks(), graph.duplicates()
    return {
        "version": RESULTS_VERSION,
        "ranking": "filtered",
        "filter": ["train", "valid", "test"],
        "sides": ["head", "tail"],
        "ties": "realistic",
        "selection": {
            "metric": "mrr",
            "split": "valid",
            "triples": min(sample, len(graph.valid)) or len(graph.valid),
            "ties": "realistic",
            "clean": not problems(duplicates, leaks),
            **leaks,
            **{f"{split}_duplicates": count for split, count in duplicates.items()},
        },
        "graph": graph.name,
        "fingerprint": graph.fingerprint,
        "verified_source": graph.provenance.verified,
    }


def split_report(
    graph: Graph,
    split: str,
    ranks: Mapping[Side, SideRanks],
    model: Mapping[str, Any],
    sample: int = 0,
) -> dict[str, Any]:
    """The contents of ``results.json`` for one split.

    Metrics are fractions, nested as ``split.side.tie.metric``. `model` describes what was
    evaluated; see `protocol` for `sample`.
    """
    triples = graph.splits[split]
    categories = relation_categories(graph.train, len(graph.entities), len(graph.relations))
    relation_names = {i: graph.relations[i] for i in np.unique(triples[:, 1]).tolist()}
    relations = triples[:, 1].astype(np.int64)
    by_category = grouped_metrics(ranks, categories[relations], dict(enumerate(CATEGORIES)))
    return {
        "mmkgc": __version__,
        "protocol": protocol(graph, sample),
        "model": dict(model),
        "metrics": {split: side_metrics(ranks)},
        "categories": {split: by_category},
        "relations": {split: grouped_metrics(ranks, relations, relation_names)},
    }


def rank_table(graph: Graph, triples: Triples, ranks: Mapping[Side, SideRanks]) -> bytes:
    """A TSV with one row per triple and side: names, side, ranks, number of candidates."""
    text = io.StringIO()
    text.write("head\trelation\ttail\tside\trealistic\toptimistic\tpessimistic\tcandidates\n")
    entities, relations = graph.entities, graph.relations
    for side in (Side.head, Side.tail):
        side_ranks = ranks[side]
        columns = (
            side_ranks.realistic,
            side_ranks.optimistic,
            side_ranks.pessimistic,
            side_ranks.candidates,
        )
        for (h, r, t), *row in zip(triples.tolist(), *(c.tolist() for c in columns), strict=True):
            realistic, optimistic, pessimistic, candidates = row
            text.write(
                f"{entities[h]}\t{relations[r]}\t{entities[t]}\t{side.name}\t{realistic:.1f}\t"
                f"{optimistic}\t{pessimistic}\t{candidates}\n"
            )
    return text.getvalue().encode()
