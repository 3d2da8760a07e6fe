"""The audit of a prepared graph, stored beside it as ``audit.json``."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.evaluation.copying import copy_ranks
from mmkgc_cli.evaluation.metrics import side_metrics
from mmkgc_cli.kg.audit import AUDIT_VERSION, REQUIRED, audit_graph
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.relation_pairs import counterparts
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.state.atomic import read_json, write_json

FILE_NAME = "audit.json"
_METRICS = ("mrr", "mr", "hits@1", "hits@10")


def audit(graph: Graph) -> dict[str, Any]:
    """Computes the audit of a graph: `kg.audit.audit_graph` and ``copy``.

    ``copy.train`` contains the test metrics of copying train triples, and
    ``copy.train_and_counterparts`` those of also copying them through symmetric, inverse and
    equivalent relations. These are fractions: filtered, realistic, over both sides. ``copy`` is
    None without test triples.
    """
    report, pairs = audit_graph(graph)
    sources = {} if pairs is None else counterparts(pairs)
    report["copy"] = None
    if len(graph.test):
        report["copy"] = {
            "train": _score(graph, {}),
            "train_and_counterparts": _score(graph, sources),
        }
    return report


def _score(graph: Graph, sources: dict[int, list[tuple[int, bool]]]) -> dict[str, float]:
    metrics = side_metrics(copy_ranks(graph, "test", sources))["both"]["realistic"]
    return {name: round(metrics[name], 6) for name in _METRICS}


def stored_audit(
    folder: Path, graph: Graph | None = None, warn: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """Reads the audit of the graph in `folder`, or computes and stores it when it is out of date.

    Args:
        folder: folder or file of the graph.
        graph: the graph in `folder`, if it is already loaded.
        warn: called with a message when the audit cannot be stored, instead of an error.

    Raises:
        DataError: when there is no graph, or the audit cannot be stored and `warn` is None.
    """
    if graph is None:
        graph = load_graph(folder)
    path = (folder.parent if folder.is_file() else folder) / FILE_NAME
    stored = _read(path)
    if (
        isinstance(stored, dict)
        and all(key in stored for key in (*REQUIRED, "copy"))
        and stored.get("version") == AUDIT_VERSION
        and stored.get("fingerprint") == graph.fingerprint
        and stored.get("graph") == graph.name
    ):
        return stored
    report = audit(graph)
    try:
        write_json(path, report)
    except DataError as error:
        if warn is None:
            raise
        warn(f"note: the audit is not stored: {error}")
    return report


def _read(path: Path) -> Any:
    try:
        return read_json(path) if path.is_file() else None
    except DataError:
        return None  # damaged: the audit is computed again
