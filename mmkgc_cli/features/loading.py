"""Features for a training: one table in the graph's order, and no row that nobody accounted for."""

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
    """Vectors float32 ``[E, d]``, which of them are real bool ``[E]``, and where they come from.

    `observed` is true where the store holds a vector, observed or generated, and false where
    `vectors` holds a fill or zeros.
    """

    vectors: Tensor
    observed: Tensor
    provenance: dict[str, Any]


def open_features(path: Path, graph: Graph, allow_other_train: bool = False) -> AlignedFeatures:
    """Opens a store for a graph; vectors stay on the disk.

    Raises:
        DataError: when it cannot be read, does not fit the graph, or was fitted on another train
            split and `allow_other_train` is not set.
    """
    store = FeatureStore(path)
    features = align(store, graph)
    if store.about.train_id not in ("", graph.train_id) and not allow_other_train:
        raise DataError(
            f"{path}: made from another train split than that of {graph.name!r} (train_id "
            f"{store.about.train_id[:12]}, expected {graph.train_id[:12]}); its vectors may know "
            "test triples. Make it again, or say --allow-other-train"
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
        path: of the store.
        graph: whose entities are looked up.
        fill: what stands for rows that hold no vector: zero, mean, random or one.
        seed: of the fill.
        uses_mask: whoever asks looks at `observed`; rows without a vector are then zero.
        allow_other_train: take vectors that were fitted on another train split.

    Raises:
        DataError: as `open_features`; or when there are rows without a vector, no fill is named,
            and the mask is not used.
        UsageError: for a fill that does not exist.
    """
    features = open_features(path, graph, allow_other_train)
    store, present = features.store, features.present
    missing = int((~present).sum())
    if missing and fill is None and not uses_mask:
        raise DataError(
            f"{path}: {missing:,} of {counted(len(present), 'entity')} of {graph.name!r} have no "
            f"{store.about.modality} vector; say what stands for it: --fill {'|'.join(FILLS)}"
        )
    with store:
        vectors = torch.from_numpy(features.read())
    if fill is not None:
        modality = store.about.modality
        fill_rows(vectors.numpy(), present, fill, graph.entities, modality, seed)
    provenance = {
        **store.about.as_object(),
        "path": str(path),
        "sha256": store.seal.sha256,
        "entities_id": store.entities_id,
        "coverage": features.coverage(),
        "fill": fill,
        "fill_seed": seed if fill == "random" else None,
    }
    return LoadedFeatures(vectors, torch.from_numpy(present.copy()), provenance)
