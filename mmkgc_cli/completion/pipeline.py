"""Completes a feature store, and measures strategies on held-out vectors."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmkgc_cli.completion.auto import StrategyChoice, choose_strategy
from mmkgc_cli.completion.measuring import HeldOutVectors
from mmkgc_cli.completion.problem import CompletionProblem
from mmkgc_cli.completion.strategies import (
    ITERATIONS,
    STRATEGIES,
    TRAINED,
    GeneratedVectors,
    Strategy,
    cross_fit,
    find_strategy,
)
from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.features.alignment import AlignedFeatures
from mmkgc_cli.features.format import Mask
from mmkgc_cli.features.loading import open_features
from mmkgc_cli.features.masks import MaskRequest, missing_mask
from mmkgc_cli.features.writing import FeatureBlock, write_store
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.text import counted

VARIANTS = ("gen", "all-gen")
# Measures a generator, a function from entity ids to vectors, on the held-out entities.
MeasureFunction = Callable[[Callable[[torch.Tensor], torch.Tensor]], dict[str, float]]
# Builds a trained strategy; gets a measure for use during training, or None if none is held out.
StrategyFactory = Callable[[MeasureFunction | None], Strategy]


@dataclass(frozen=True)
class CompletionRequest:
    """Arguments of a completion.

    Attributes:
        modality: modality of the store.
        strategy: one of `STRATEGIES` or `TRAINED`, "auto", or "all", which only measures.
        variant: "gen" generates vectors for entities without one, "all-gen" for all entities.
        missing_rate: share of the observed vectors that is held out first (`masks.MaskRequest`) and
            measured; None measures nothing.
        mask_seed: random seed of the mask.
        pattern: pattern of the mask.
        seed: random seed for sampling and for the held-out split of "auto".
        iterations: number of propagation iterations.
        allow_other_train: accept a store that depends on another train split. The completed store
            keeps the `train_id` of that split.
    """

    modality: str
    strategy: str
    variant: str = "gen"
    missing_rate: float | None = None
    mask_seed: int = 0
    pattern: str = "random"
    seed: int = 0
    iterations: int = ITERATIONS
    allow_other_train: bool = False

    def __post_init__(self) -> None:
        if self.variant not in VARIANTS:
            raise UsageError(f"unknown variant {self.variant!r}",
                             fix=nearest(self.variant, VARIANTS))  # fmt: skip
        if self.strategy not in ("auto", "all", *TRAINED):
            find_strategy(self.strategy)
        if self.strategy == "all" and self.variant != "gen":
            raise UsageError(
                f"--variant {self.variant}: strategy 'all' writes no store, it only measures",
                fix="remove --variant, or name one --strategy",
            )
        if self.missing_rate is not None:
            self.mask()
            if self.missing_rate in (0, 1):
                hidden = "no vector" if not self.missing_rate else "every vector"
                raise UsageError(
                    f"--missing-rate {self.missing_rate:g} hides {hidden}: expected more than 0 "
                    "and less than 1",
                    fix="pass a rate such as --missing-rate 0.4",
                )
        elif self.strategy == "all":
            raise UsageError(
                "strategy 'all' needs held-out vectors to measure on",
                fix="add --missing-rate, such as --missing-rate 0.4",
            )

    def mask(self) -> MaskRequest:
        """The mask of the held-out vectors."""
        return MaskRequest(self.modality, self.missing_rate or 0.0, self.mask_seed, self.pattern)

    def mask_record(self, graph: Graph) -> dict[str, Any]:
        """The mask as attributes of the completed store."""
        record = {"rate": self.missing_rate, "seed": self.mask_seed, "pattern": self.pattern}
        return {**record, "train_id": graph.train_id} if self.mask().needs_graph else record


def complete_store(
    request: CompletionRequest,
    graph: Graph,
    store: Path,
    out: Path,
    strategy_factory: StrategyFactory | None = None,
    *,
    save_report: Callable[[dict[str, Any]], None] | None = None,
) -> dict[str, Any]:
    """Completes a feature store, and measures the strategy on held-out vectors.

    Args:
        request: strategy, variant and mask.
        graph: the graph of the entities; strategies use its train triples.
        store: path of the store to complete.
        out: path of the completed store; strategy "all" writes nothing.
        strategy_factory: builds the strategy if it is one of `TRAINED`.
        save_report: is called with the report before the store is written, so that the work is
            finished once the store exists.

    Returns:
        A report, plain JSON: counts and, with a missing rate, the measures of each strategy used.

    Raises:
        DataError: when the store cannot be read, has another modality, does not fit the graph,
            depends on another train split without `allow_other_train`, is completed already or
            would be masked twice; when a vector is not finite, when none is observed, and when
            none is missing.
    """
    features = open_features(store, graph, request.allow_other_train)
    with features.store:
        _check_store(request, features)
        vectors = features.read()
        hidden = _hidden_mask(request, graph, features)
        observed = features.observed & ~hidden
        if not observed.any():
            raise DataError(
                f"{store}: no {request.modality} vector is observed among the "
                f"{counted(len(observed), 'entity')} of graph {graph.name!r}",
                fix="lower --missing-rate, or extract or import vectors for this graph",
            )
        if observed.all() and request.variant == "gen":
            raise DataError(
                f"{store}: every entity of {graph.name!r} has a {request.modality} vector, so "
                "none is missing",
                fix="hide some with --missing-rate, or replace all with --variant all-gen",
            )
        _check_finite(store, vectors, features.observed, graph)
        problem = CompletionProblem.from_graph(
            graph, request.modality, torch.from_numpy(vectors), observed, request.seed
        )
        report: dict[str, Any] = {
            "modality": request.modality, "graph": graph.name, "train_id": graph.train_id,
            "store": str(store), "sha256": features.store.checksums.sha256,
            "entities": len(observed), "observed": int(observed.sum()),
            "hidden": int(hidden.sum()), "missing": int((~observed).sum()),
            "strategy": request.strategy, "variant": request.variant,
            "missing_rate": request.missing_rate, "mask_seed": request.mask_seed,
            "pattern": request.pattern, "seed": request.seed, "auto": None, "measures": {},
        }  # fmt: skip
        order = graph.sorted_entities.order
        hidden_ids = torch.from_numpy(hidden[order]).nonzero()[:, 0]
        truth = None
        if len(hidden_ids):
            truth = HeldOutVectors(problem.vectors[hidden_ids], problem.mean)
        if request.strategy == "all" and truth is not None:
            for baseline in STRATEGIES.values():
                output = baseline.generate(problem, hidden_ids, request.iterations)
                report["measures"][baseline.name] = _measures_of(truth, output)
            if save_report is not None:
                save_report(report)
            return report
        measure = None if truth is None else _measure_function(truth, hidden_ids)
        strategy, choice = _resolve_strategy(request, problem, strategy_factory, measure)
        if choice is not None:
            report["auto"] = {
                "best": choice.best, "gain": choice.gain,
                "tried": {name: m.as_object() for name, m in choice.measures.items()},
            }  # fmt: skip
        entities = torch.arange(len(observed))
        if request.variant == "gen":
            entities = (~problem.observed).nonzero()[:, 0]
        output = cross_fit(strategy, problem, entities, request.iterations)
        if truth is not None:
            is_hidden = torch.isin(entities, hidden_ids)
            hidden_output = GeneratedVectors(output.vectors[is_hidden], output.fallback[is_hidden])
            report["measures"][strategy.name] = _measures_of(truth, hidden_output)
        report |= {
            "used": strategy.name, "generated": len(entities),
            "fallback": int(output.fallback.sum()), "fallback_is": strategy.fallback,
            "settings": dict(output.settings), "path": str(out),
        }  # fmt: skip
        generated = torch.zeros(len(observed), dtype=torch.bool)
        generated[entities] = True
        completed = problem.vectors.clone()
        completed[entities] = output.vectors
        ranks = torch.from_numpy(graph.sorted_entities.ranks).long()
        rows = FeatureBlock(
            graph.entities, completed[ranks].numpy(), observed, generated[ranks].numpy()
        )
        if save_report is not None:
            save_report(report)
        _write_completed(out, request, graph, features, strategy=strategy, report=report, rows=rows)
    return report


def _check_store(request: CompletionRequest, features: AlignedFeatures) -> None:
    store = features.store
    metadata = store.metadata
    if metadata.modality != request.modality:
        raise DataError(
            f"{store.path}: expected {request.modality} vectors, got {metadata.modality} vectors",
            fix=f"run mmkgc complete {metadata.modality}, or name another store with --features",
        )
    if metadata.completion or features.generated.any():
        raise DataError(
            f"{store.path}: is a completed store",
            fix="name the store before completion with --features",
        )
    if metadata.mask and request.missing_rate is not None:
        raise DataError(
            f"{store.path}: is a masked store and cannot be masked again",
            fix="remove --missing-rate, or name the store before masking with --features",
        )


def _hidden_mask(request: CompletionRequest, graph: Graph, features: AlignedFeatures) -> Mask:
    if request.missing_rate is None:
        return np.zeros(len(features.rows), dtype=bool)
    hidden = missing_mask(request.mask(), graph.entities, features.observed, graph)
    if not hidden.any() and features.observed.any():
        raise DataError(
            f"{features.store.path}: --missing-rate {request.missing_rate:g} of "
            f"{counted(int(features.observed.sum()), 'observed vector')} hides none",
            fix="pass a higher --missing-rate",
        )
    return hidden


def _check_finite(path: Path, vectors: np.ndarray[Any, Any], present: Mask, graph: Graph) -> None:
    rows = np.flatnonzero(present & ~np.isfinite(vectors).all(axis=1))
    if len(rows):
        raise DataError(
            f"{path}: the vector of {graph.entities[rows[0]]!r} is not finite "
            f"({counted(len(rows), 'such row')})",
            fix=f"list them with mmkgc features check {path}, and extract or import them again",
        )


def _measure_function(truth: HeldOutVectors, entities: torch.Tensor) -> MeasureFunction:
    return lambda generate: truth.measure(generate(entities)).as_object()


def _resolve_strategy(
    request: CompletionRequest,
    problem: CompletionProblem,
    strategy_factory: StrategyFactory | None,
    measure: MeasureFunction | None,
) -> tuple[Strategy, StrategyChoice | None]:
    if request.strategy in TRAINED:
        assert strategy_factory is not None, f"{request.strategy} needs a strategy factory"
        return strategy_factory(measure), None
    if request.strategy != "auto":
        return find_strategy(request.strategy), None
    choice = choose_strategy(problem, request.iterations)
    return find_strategy(choice.best), choice


def _measures_of(truth: HeldOutVectors, output: GeneratedVectors) -> dict[str, float]:
    return {**truth.measure(output.vectors).as_object(), "fallback": int(output.fallback.sum())}


def _write_completed(
    out: Path,
    request: CompletionRequest,
    graph: Graph,
    features: AlignedFeatures,
    *,
    strategy: Strategy,
    report: Mapping[str, Any],
    rows: FeatureBlock,
) -> None:
    store = features.store
    # "auto" compares strategies that use triples, so its choice depends on the train split.
    uses_triples = strategy.uses_triples or request.strategy == "auto"
    completion = {
        "strategy": strategy.name, "variant": request.variant, "seed": request.seed,
        "asked": request.strategy, "missing_rate": request.missing_rate,
        "mask_seed": None if request.missing_rate is None else request.mask_seed,
        "settings": report["settings"], "fallback": report["fallback"],
        "train_id": graph.train_id if uses_triples else "",
    }  # fmt: skip
    depends_on_train = uses_triples or (
        request.missing_rate is not None and request.mask().needs_graph
    )
    metadata = replace(
        store.metadata,
        graph=graph.name,
        completion=completion,
        mask=store.metadata.mask if request.missing_rate is None else request.mask_record(graph),
        # The train_id of another split is kept: the vectors may depend on its triples.
        train_id=store.metadata.train_id or (graph.train_id if depends_on_train else ""),
        notes=(
            *store.metadata.notes,
            f"completed from {store.path.name} sha256 {store.checksums.sha256}",
        ),
    )

    def blocks() -> Iterator[FeatureBlock]:
        for start in range(0, len(rows.ids), store.slab_rows):
            block = slice(start, start + store.slab_rows)
            generated = None if rows.generated is None else rows.generated[block]
            yield FeatureBlock(
                rows.ids[block], rows.vectors[block], rows.observed[block], generated
            )

    write_store(
        out, metadata, blocks(), n=len(rows.ids), width=store.width, dtype=store.dtype.name,
        compression=store.compression,
    )  # fmt: skip
