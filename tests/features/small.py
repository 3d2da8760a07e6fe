"""Helpers that write small feature stores."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmkgc_cli.features.checksums import write_checksums
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.writing import FeatureBlock, write_store
from mmkgc_cli.kg.graph import Graph


def vectors(n: int, width: int, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, width)).astype(np.float32)


def write(
    path: Path,
    ids: Sequence[str],
    values: np.ndarray,
    observed: np.ndarray | None = None,
    generated: np.ndarray | None = None,
    *,
    metadata: Metadata | None = None,
    block_size: int = 7,
    **options: Any,
) -> Path:
    """Writes a store in small blocks; unobserved rows become zero."""
    mask = np.ones(len(ids), dtype=bool) if observed is None else observed

    def blocks() -> Iterator[FeatureBlock]:
        for start in range(0, len(ids), block_size):
            rows = slice(start, start + block_size)
            generated_rows = None if generated is None else generated[rows]
            yield FeatureBlock(ids[rows], values[rows], mask[rows], generated_rows)

    metadata = metadata or Metadata("image")
    return write_store(path, metadata, blocks(), n=len(ids), width=values.shape[1], **options)


def edit(path: Path, name: str, row: int, value: Any) -> None:
    """Changes a value in a store and updates the checksums, as a faulty writer would."""
    size = int(path.read_bytes()[:512].split(b"size ")[1].split(b"\n")[0])
    with path.open("r+b") as file:
        file.truncate(size)
    with h5py.File(path, "r+") as file:
        file[name][row] = value
    with path.open("r+b") as file:
        write_checksums(file)


def graph_of(entities: Sequence[str]) -> Graph:
    """A graph with a train triple from each entity to the next."""
    n = len(entities)
    train = np.array([[i, 0, (i + 1) % n] for i in range(n)], dtype=np.int32)
    return Graph("ring", list(entities), ["next"], train, train[:0], train[:0])
