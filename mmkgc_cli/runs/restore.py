"""Loads a finished run: its graph, and its scorer with the saved weights."""

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


def load_same_graph(run: RunDirectory, section: GraphConfig, graph_folder: Path | None) -> Graph:
    """The graph of a run, from the recorded folder or from `graph_folder`.

    Raises:
        DataError: when the folder holds another graph.
    """
    folder = graph_folder or Path(section.path)
    graph = load_graph(folder)
    if graph.fingerprint != section.fingerprint:
        raise DataError(
            f"{run.path}: trained on graph {section.name!r} ({section.fingerprint[:12]}…), but "
            f"{folder} holds {graph.name!r} ({graph.fingerprint[:12]}…)",
            fix="pass the folder of its graph with --graph",
        )
    if graph.order_id != section.order_id:
        raise DataError(
            f"{run.path}: {folder} holds the same triples with other ids, which do not fit the "
            "weights",
            fix="prepare the graph again from the original files, and pass it with --graph",
        )
    return graph


@dataclasses.dataclass(frozen=True)
class LoadedRun:
    """A finished run, with its scorer in eval mode.

    `epoch` and `checksum` are those of the weights. `plugin_change` states in one line how the file
    of the scorer was changed since the training; empty if it was not.
    """

    config: RunConfig
    graph: Graph
    scorer: Scorer
    epoch: int
    checksum: str
    plugin_change: str


def load_run(run: RunDirectory, graph_folder: Path | None, device: str = "auto") -> LoadedRun:
    """Loads a finished run.

    Args:
        run: the run directory.
        graph_folder: the graph, if it was moved; None uses the recorded folder.
        device: the device of the scorer: ``auto``, ``cpu`` or ``cuda``.

    Raises:
        DataError: when files of the run are missing or damaged, or the graph is another one.
    """
    run.require()
    config, plugin_change = config_and_change(run)
    graph = load_same_graph(run, config.graph, graph_folder)
    tensors, metadata = load_weights(run.weights)
    if metadata.get("order_id") != graph.order_id or metadata.get("scorer") != config.scorer:
        raise DataError(
            f"{run.weights}: the weights belong to another run",
            fix=f"train again: mmkgc train {config.scorer} --graph GRAPH",
        )
    target = pick_device(device)
    features = placeholders(config, len(graph.entities))
    scorer = build_scorer(config, graph, torch.device("cpu"), features)
    try:
        load_tensors(scorer, tensors)
    except RuntimeError as error:
        change = f" ({plugin_change})" if plugin_change else ""
        raise DataError(
            f"{run.weights}: the weights do not fit the configuration of the run{change}",
            fix="restore the file of the scorer" if plugin_change else "train again",
        ) from error
    return LoadedRun(
        config,
        graph,
        scorer.to(target).eval(),
        int(metadata["epoch"]),
        checksum(tensors),
        plugin_change,
    )
