"""``mmkgc eval``: ranks a split with a trained run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.evaluation.ranker import rank
from mmkgc_cli.evaluation.ranks import SideRanks
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.runs.assembly import known_triples
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.plugins import plugin_of
from mmkgc_cli.runs.restore import load_run
from mmkgc_cli.runs.results import rank_table, split_report
from mmkgc_cli.runs.sections import RunConfig
from mmkgc_cli.scoring import Side
from mmkgc_cli.scoring.registry import SCORERS
from mmkgc_cli.state.atomic import read_json, write_bytes, write_json


def run_evaluation(
    run: RunDirectory, graph_folder: Path | None, split: str, device: str = "auto"
) -> dict[str, Any]:
    """Ranks a split with a trained run and writes ``results.json`` and the ranks.

    Returns:
        The contents of ``results.json``.

    Raises:
        DataError: as `load_run`; also when the split is empty.
        NonFiniteScores: when a score is NaN or infinite.
    """
    loaded = load_run(run, graph_folder, device)
    graph = loaded.graph
    triples: Triples = graph.splits[split]
    if not len(triples):
        raise DataError(
            f"{graph.name}: the graph has no {split} triples", fix="pass another split with --split"
        )
    ranks: dict[Side, SideRanks] = rank(loaded.scorer, triples, known_triples(graph))
    model = {
        "scorer": loaded.config.scorer,
        "config": loaded.config.model.model_dump(),
        "epoch": loaded.epoch,
        "sha256": loaded.checksum,
        "precision": loaded.config.training.precision,
        "candidates": loaded.config.training.candidates,
        "sampler": _sampler_record(loaded.config),
        "plugin": {
            **plugin_of(SCORERS, loaded.config.scorer).model_dump(),
            "change": loaded.plugin_change or None,
        },
    }
    if loaded.config.stores:
        model["features"] = {m: store.model_dump() for m, store in loaded.config.stores.items()}
    if loaded.scorer.scores_triples_only():
        model["path"] = "whole triples"
    results = split_report(graph, split, ranks, model, loaded.config.validation.sample)
    results = _merge(_previous_results(run), results)
    write_bytes(run.ranks(split), rank_table(graph, triples, ranks))
    write_json(run.results, results)
    return results


def _sampler_record(config: RunConfig) -> dict[str, Any] | None:
    """The sampler of a training, with its settings and its file; None without negatives."""
    if config.negatives is None or config.sampler is None or config.sampler_plugin is None:
        return None
    return {
        "name": config.negatives.sampler,
        "config": config.sampler.model_dump(),
        "plugin": config.sampler_plugin.model_dump(),
    }


def _previous_results(run: RunDirectory) -> Any:
    """Earlier results; None when the file is missing or damaged."""
    try:
        return read_json(run.results) if run.results.is_file() else None
    except DataError:
        return None


def _merge(old: Any, new: dict[str, Any]) -> dict[str, Any]:
    """Adds earlier results of other splits, if weights and protocol are the same."""
    if not isinstance(old, dict) or any(old.get(k) != new[k] for k in ("protocol", "model")):
        return new
    nested = ("metrics", "categories", "relations")
    if not all(isinstance(old.get(key), dict) for key in nested):
        return new
    return {**new, **{key: {**old[key], **new[key]} for key in nested}}
