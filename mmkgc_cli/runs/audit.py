"""The audit of a prepared graph, kept beside it as ``audit.json``."""

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
    """The audit of a graph: `kg.audit.audit_graph`, and ``copy``.

    ``copy.train`` is what copying train would score on test, ``copy.train_and_counterparts`` what
    copying it through symmetric, inverse and equivalent relations too would: filtered realistic
    metrics over both sides, fractions; None without test triples.
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
    folder: Path, graph: Graph | None = None, tell: Callable[[str], None] | None = None
) -> dict[str, Any]:
    """The audit of the graph in `folder`: read where it fits the graph, else made and stored.

    Args:
        folder: of the graph.
        graph: what is there, when it is loaded already.
        tell: told when the audit cannot be stored, which is then no error.

    Raises:
        DataError: when there is no graph, or the storage refuses.
    """
    if graph is None:
        graph = load_graph(folder)
    path = (folder.parent if folder.is_file() else folder) / FILE_NAME
    found = _read(path)
    if (
        isinstance(found, dict)
        and all(key in found for key in (*REQUIRED, "copy"))
        and found.get("version") == AUDIT_VERSION
        and found.get("fingerprint") == graph.fingerprint
        and found.get("graph") == graph.name
    ):
        return found
    report = audit(graph)
    try:
        write_json(path, report)
    except DataError as error:
        if tell is None:
            raise
        tell(f"note: the audit is not stored: {error}")
    return report


def _read(path: Path) -> Any:
    try:
        return read_json(path) if path.is_file() else None
    except DataError:
        return None  # damaged; it is made again
