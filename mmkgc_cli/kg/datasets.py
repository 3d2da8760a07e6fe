"""The registry of benchmarks in ``datasets.toml``: counts, checksums, licences, citations."""

from __future__ import annotations

import functools
import hashlib
import tomllib
from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict, Field

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.kg.graph import Graph

ELEMENTS = "elements"


class Dataset(BaseModel):
    """One benchmark as registered."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    format: Literal["openke", "hrt", "htr"]
    entities: int = Field(gt=0)
    relations: int = Field(gt=0)
    train: int = Field(gt=0)
    valid: int = Field(gt=0)
    test: int = Field(gt=0)
    source: str = Field(pattern=r"^https://")
    licence: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    sha256: dict[str, str] = Field(min_length=1)

    @property
    def counts(self) -> dict[str, int]:
        """The five counts, named as in `Graph.counts`."""
        return {
            key: getattr(self, key) for key in ("entities", "relations", "train", "valid", "test")
        }


def _registry_path() -> Path:
    package = Path(__file__).resolve().parent.parent
    installed = package / "datasets.toml"
    return installed if installed.is_file() else package.parent / "datasets.toml"


@functools.cache
def registry() -> dict[str, Dataset]:
    """All registered benchmarks by name."""
    with _registry_path().open("rb") as file:
        return {name: Dataset(**entry) for name, entry in tomllib.load(file).items()}


def known_names() -> list[str]:
    """Every name `prepare` knows, the built-in graph first."""
    return [ELEMENTS, *registry()]


def unknown_dataset(name: str) -> UsageError:
    """The error for a name that is no benchmark and comes without its own files."""
    return UsageError(
        f"no graph is called {name!r}; {nearest(name, known_names())} "
        "(for triples of your own give --source and --format)"
    )


def verify_files(dataset: Dataset, folder: Path) -> None:
    """Holds the files in `folder` against their registered checksums.

    Raises:
        DataError: for the first file that is missing or differs.
    """
    for name, expected in dataset.sha256.items():
        path = folder / name
        if not path.is_file():
            raise DataError(
                f"{path}: no such file; {dataset.title} is published at {dataset.source}"
            )
        with path.open("rb") as file:
            found = hashlib.file_digest(file, "sha256").hexdigest()
        if found != expected:
            raise DataError(
                f"{path}: SHA-256 {found[:12]}…, expected {expected[:12]}… for {dataset.title}; "
                "get the published file, or pass --allow-unverified to take this one"
            )


def verify_counts(dataset: Dataset, graph: Graph, folder: Path) -> None:
    """Holds the five counts of a graph against the registered ones.

    Raises:
        DataError: naming the first count that differs.
    """
    for key, expected in dataset.counts.items():
        found = graph.counts[key]
        if found != expected:
            raise DataError(f"{folder}: {found} {key}, expected {expected} for {dataset.title}")
