"""From a store with gaps to one without, and to a table of what each strategy is worth."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from mmkgc_cli.completion.auto import Choice, choose
from mmkgc_cli.completion.measuring import Truth
from mmkgc_cli.completion.problem import Problem
from mmkgc_cli.completion.strategies import (
    ITERATIONS,
    STRATEGIES,
    TRAINED,
    Made,
    Strategy,
    strategy,
    without_own,
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
# Measures vectors of hidden entities, which the function it gets makes from their ids.
Measure = Callable[[Callable[[torch.Tensor], torch.Tensor]], dict[str, float]]
# Makes a strategy that is trained; it may measure on the way, where something was hidden.
Trained = Callable[[Measure | None], Strategy]


@dataclass(frozen=True)
class Request:
    """What to complete, and how.

    `strategy` is one of `STRATEGIES` or `TRAINED`, "auto", or "all", which only measures. `variant`
    "gen" makes vectors for entities without one, "all-gen" for all of them. `missing_rate` hides
    that share of the observed vectors first (`masks.MaskRequest`); without it nothing can be
    measured.
    `allow_other_train` takes a store that was made from another train split, whose `train_id` the
    completed store keeps: it is refused as that one was.
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
            raise UsageError(f"variant {self.variant!r}: {nearest(self.variant, VARIANTS)}")
        if self.strategy not in ("auto", "all", *TRAINED):
            strategy(self.strategy)
        if self.strategy == "all" and self.variant != "gen":
            raise UsageError("strategy 'all' only measures: --variant is for one strategy")
        if self.missing_rate is not None:
            self.mask()
            if self.missing_rate in (0, 1):
                what = "nothing" if not self.missing_rate else "every vector"
                raise UsageError(
                    f"missing rate {self.missing_rate:g} hides {what}: expected more than 0 and "
                    "less than 1"
                )
        elif self.strategy == "all":
            raise UsageError(
                "strategy 'all' measures on hidden vectors: say how many with --missing-rate"
            )

    def mask(self) -> MaskRequest:
        """The mask that hides vectors."""
        return MaskRequest(self.modality, self.missing_rate or 0.0, self.mask_seed, self.pattern)

    def mask_record(self, graph: Graph) -> dict[str, Any]:
        """As a store says that it was masked."""
        record = {"rate": self.missing_rate, "seed": self.mask_seed, "pattern": self.pattern}
        return {**record, "train_id": graph.train_id} if self.mask().needs_graph else record


def complete(
    request: Request, graph: Graph, store: Path, out: Path, trained: Trained | None = None
) -> dict[str, Any]:
    """Completes a store, and measures it on what was hidden.

    Args:
        request: how.
        graph: whose entities get vectors, and whose train triples say more of them.
        store: to complete.
        out: the completed store; for the strategy "all" nothing is written.
        trained: makes the strategy, where it is one of `TRAINED`.

    Returns:
        A report, plain JSON: counts, and with a missing rate the measures of each strategy used.

    Raises:
        DataError: when the store cannot be read, is of another modality, does not fit the graph,
            was made from another train split without `allow_other_train`, was completed before or
            is to be masked a second time; when a vector is not finite; when none is observed, or
            none is missing.
    """
    features = open_features(store, graph, request.allow_other_train)
    with features.store:
        _check(request, features)
        vectors = features.read()
        hidden = _hidden(request, graph, features)
        observed = features.observed & ~hidden
        if not observed.any():
            raise DataError(f"{store}: no {request.modality} vector is observed among the "
                            f"{counted(len(observed), 'entity')} of {graph.name!r}; there is "
                            "nothing to learn from")  # fmt: skip
        if observed.all() and request.variant == "gen":
            raise DataError(
                f"{store}: every entity of {graph.name!r} has a {request.modality} vector, so "
                "nothing is missing; hide some with --missing-rate, or say --variant all-gen"
            )
        _check_finite(store, vectors, features.observed, graph)
        problem = Problem.of(
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
        asked = torch.from_numpy(hidden[order]).nonzero()[:, 0]
        truth = Truth(problem.vectors[asked], problem.mean) if len(asked) else None
        if request.strategy == "all" and truth is not None:
            for one in STRATEGIES.values():
                made = one.make(problem, asked, request.iterations)
                report["measures"][one.name] = _measured(truth, made)
            return report
        measure = None if truth is None else _measuring(truth, asked)
        chosen, choice = _chosen(request, problem, trained, measure)
        if choice is not None:
            report["auto"] = {
                "best": choice.best, "gain": choice.gain,
                "tried": {name: m.as_object() for name, m in choice.tried.items()},
            }  # fmt: skip
        wanted = torch.arange(len(observed))
        if request.variant == "gen":
            wanted = (~problem.observed).nonzero()[:, 0]
        made = without_own(chosen, problem, wanted, request.iterations)
        if truth is not None:
            of_hidden = torch.isin(wanted, asked)
            part = Made(made.vectors[of_hidden], made.fallback[of_hidden])
            report["measures"][chosen.name] = _measured(truth, part)
        report |= {
            "used": chosen.name, "generated": len(wanted), "fallback": int(made.fallback.sum()),
            "fallback_is": chosen.fallback, "settings": dict(made.settings), "path": str(out),
        }  # fmt: skip
        generated = torch.zeros(len(observed), dtype=torch.bool)
        generated[wanted] = True
        table = problem.vectors.clone()
        table[wanted] = made.vectors
        back = torch.from_numpy(graph.sorted_entities.ranks).long()
        _write(out, request, graph, features, chosen, report,
               (table[back].numpy(), observed, generated[back].numpy()))  # fmt: skip
    return report


def _check(request: Request, features: AlignedFeatures) -> None:
    store = features.store
    about = store.metadata
    if about.modality != request.modality:
        raise DataError(f"{store.path}: holds {about.modality} vectors, expected "
                        f"{request.modality}")  # fmt: skip
    if about.completion or features.generated.any():
        raise DataError(f"{store.path}: was completed already; complete the store it was made from")
    if about.mask and request.missing_rate is not None:
        raise DataError(
            f"{store.path}: was masked already; complete it without --missing-rate, or what it was "
            "made from with it"
        )


def _hidden(request: Request, graph: Graph, features: AlignedFeatures) -> Mask:
    if request.missing_rate is None:
        return np.zeros(len(features.rows), dtype=bool)
    hidden = missing_mask(request.mask(), graph.entities, features.observed, graph)
    if not hidden.any() and features.observed.any():
        raise DataError(
            f"{features.store.path}: missing rate {request.missing_rate:g} of "
            f"{counted(int(features.observed.sum()), 'observed vector')} hides none; say a higher "
            "one"
        )
    return hidden


def _check_finite(path: Path, vectors: np.ndarray[Any, Any], present: Mask, graph: Graph) -> None:
    bad = np.flatnonzero(present & ~np.isfinite(vectors).all(axis=1))
    if len(bad):
        raise DataError(
            f"{path}: the vector of {graph.entities[bad[0]]!r} is not finite "
            f"({counted(len(bad), 'row')} like it); see `mmkgc features check`"
        )


def _measuring(truth: Truth, asked: torch.Tensor) -> Measure:
    return lambda made: truth.measure(made(asked)).as_object()


def _chosen(
    request: Request, problem: Problem, trained: Trained | None, measure: Measure | None
) -> tuple[Strategy, Choice | None]:
    if request.strategy in TRAINED:
        assert trained is not None, f"nobody trains {request.strategy}"
        return trained(measure), None
    if request.strategy != "auto":
        return strategy(request.strategy), None
    choice = choose(problem, request.iterations)
    return strategy(choice.best), choice


def _measured(truth: Truth, made: Made) -> dict[str, float]:
    return {**truth.measure(made.vectors).as_object(), "fallback": int(made.fallback.sum())}


def _write(
    out: Path, request: Request, graph: Graph, features: AlignedFeatures, chosen: Strategy,
    report: Mapping[str, Any], content: tuple[Any, Mask, Mask],
) -> None:  # fmt: skip
    store = features.store
    table, observed, generated = content
    structural = chosen.structural or request.strategy == "auto"
    completion = {
        "strategy": chosen.name, "variant": request.variant, "seed": request.seed,
        "asked": request.strategy, "missing_rate": request.missing_rate,
        "mask_seed": None if request.missing_rate is None else request.mask_seed,
        "settings": report["settings"], "fallback": report["fallback"],
        "train_id": graph.train_id if structural else "",
    }  # fmt: skip
    own = structural or (request.missing_rate is not None and request.mask().needs_graph)
    about = replace(
        store.metadata,
        graph=graph.name,
        completion=completion,
        mask=store.metadata.mask if request.missing_rate is None else request.mask_record(graph),
        # That of another split stays, where it was allowed: the vectors may know its triples.
        train_id=store.metadata.train_id or (graph.train_id if own else ""),
        notes=(
            *store.metadata.notes,
            f"completed from {store.path.name} sha256 {store.checksums.sha256}",
        ),
    )

    def blocks() -> Iterator[FeatureBlock]:
        step = store.slab_rows
        for start in range(0, len(table), step):
            part = slice(start, start + step)
            yield FeatureBlock(graph.entities[part], table[part], observed[part], generated[part])

    write_store(
        out, about, blocks(), n=len(table), width=store.width, dtype=store.dtype.name,
        compression=store.compression,
    )  # fmt: skip
