"""Features for training: one tensor in the graph's order, with missing rows filled or masked."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.alignment import AlignedFeatures, align
from mmkgc_cli.features.fills import FILLS, fill_rows
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.text import counted


@dataclass(frozen=True, eq=False)
class LoadedFeatures:
    """Vectors float32 ``[E, d]``, mask bool ``[E]``, and provenance as plain JSON.

    `observed` is True where the store has a vector, observed or generated, and False where
    `vectors` holds a fill or zeros.
    """

    vectors: Tensor
    observed: Tensor
    provenance: dict[str, Any]


def open_features(path: Path, graph: Graph, allow_other_train: bool = False) -> AlignedFeatures:
    """Opens a store for a graph; vectors stay on disk.

    Raises:
        DataError: the store cannot be read, does not fit the graph, or was fitted on another train
            split and `allow_other_train` is False.
    """
    store = FeatureStore(path)
    features = align(store, graph)
    if store.metadata.train_id not in ("", graph.train_id) and not allow_other_train:
        raise DataError(
            f"{path}: made from another train split than that of {graph.name!r} (train_id "
            f"{store.metadata.train_id[:12]}, expected {graph.train_id[:12]}); its vectors may "
            "contain test triples",
            fix="make the store again for this graph, or add --allow-other-train",
        )
    return features


def load_features(
    path: Path,
    graph: Graph,
    fill: str | None = None,
    seed: int = 0,
    *,
    uses_mask: bool = False,
    allow_other_train: bool = False,
) -> LoadedFeatures:
    """Reads the vectors of all entities of a graph, in its order.

    Args:
        path: the store.
        graph: the graph of the entities.
        fill: value of missing vectors: zero, mean, random or one.
        seed: random seed of the fill.
        uses_mask: the caller uses `observed`; missing vectors are then zero without a fill.
        allow_other_train: accept vectors that were fitted on another train split.

    Raises:
        DataError: as `open_features`, or vectors are missing, `fill` is None and the mask is not
            used.
        UsageError: unknown fill.
    """
    features = open_features(path, graph, allow_other_train)
    store, present = features.store, features.present
    missing = int((~present).sum())
    if missing and fill is None and not uses_mask:
        raise DataError(
            f"{path}: {missing:,} of {counted(len(present), 'entity')} of {graph.name!r} have no "
            f"{store.metadata.modality} vector",
            fix=f"choose a fill with --fill {'|'.join(FILLS)}",
        )
    with store:
        vectors = torch.from_numpy(features.read())
    if fill is not None:
        modality = store.metadata.modality
        fill_rows(vectors.numpy(), present, fill, graph.entities, modality, seed)
    provenance = {
        **store.metadata.as_object(),
        "path": str(path),
        "sha256": store.checksums.sha256,
        "entities_id": store.entities_id,
        "coverage": features.coverage(),
        "fill": fill,
        "fill_seed": seed if fill == "random" else None,
    }
    return LoadedFeatures(vectors, torch.from_numpy(present.copy()), provenance)
