"""A run that is there: its graph, and its scorer with the weights that were saved."""

from __future__ import annotations

import dataclasses
from pathlib import Path

import torch

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.runs.assembly import build_scorer
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.features import placeholders
from mmkgc_cli.runs.plugins import config_and_change
from mmkgc_cli.runs.sections import GraphConfig, RunConfig
from mmkgc_cli.scoring import Scorer
from mmkgc_cli.state.device import pick_device
from mmkgc_cli.state.tensors import load_tensors
from mmkgc_cli.state.weights import checksum, load_weights


def graph_of(run: RunDirectory, config: RunConfig, graph_folder: Path | None) -> Graph:
    """The graph of a run.

    Raises:
        DataError: when what is there now is not the one it was trained on.
    """
    return load_same_graph(run, config.graph, graph_folder)


def load_same_graph(run: RunDirectory, then: GraphConfig, graph_folder: Path | None) -> Graph:
    """The graph that a run recorded, at its old place or in `graph_folder`; see `graph_of`."""
    folder = graph_folder or Path(then.path)
    graph = load_graph(folder)
    if graph.fingerprint != then.fingerprint:
        raise DataError(
            f"{run.path}: trained on graph {then.name!r} ({then.fingerprint[:12]}…)"
            f", but {folder} holds {graph.name!r} ({graph.fingerprint[:12]}…); give its --graph"
        )
    if graph.order_id != then.order_id:
        raise DataError(
            f"{run.path}: {folder} holds the same triples with ids in another order, so the "
            "weights would meet the wrong entities; prepare the graph from the same files"
        )
    return graph


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A finished run: its configuration, graph, scorer (in eval mode) and what it was saved as.

    `plugin_change` says in one line how the scorer's file differs from the one that was trained;
    empty where it does not.
    """

    config: RunConfig
    graph: Graph
    scorer: Scorer
    epoch: int
    checksum: str
    plugin_change: str


def load_run(run: RunDirectory, graph_folder: Path | None, device: str = "auto") -> LoadedRun:
    """Opens a finished run.

    Args:
        run: where the run is.
        graph_folder: where its graph is now; None takes the place it was trained from.
        device: where to put the scorer: ``auto``, ``cpu`` or ``cuda``, wherever it was trained.

    Raises:
        DataError: when the run is not whole, or the graph is not the one it was trained on.
    """
    run.require()
    config, plugin_change = config_and_change(run)
    graph = graph_of(run, config, graph_folder)
    tensors, metadata = load_weights(run.weights)
    if metadata.get("order_id") != graph.order_id or metadata.get("scorer") != config.scorer:
        raise DataError(f"{run.weights}: belongs to another run; train again")
    where = pick_device(device)
    features = placeholders(config, len(graph.entities))
    scorer = build_scorer(config, graph, torch.device("cpu"), features)
    try:
        load_tensors(scorer, tensors)
    except RuntimeError as error:
        why = f"; {plugin_change}" if plugin_change else ""
        raise DataError(f"{run.weights}: does not fit the configuration of the run{why}") from error
    return LoadedRun(
        config,
        graph,
        scorer.to(where).eval(),
        int(metadata["epoch"]),
        checksum(tensors),
        plugin_change,
    )
