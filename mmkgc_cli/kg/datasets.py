"""The registry of benchmarks in ``datasets.toml``: counts, checksums, sources, licences, citations.

An entry is either a published benchmark (`Dataset`) or derived from one (`Variant`). The section
`upstream` lists the published files that tables of texts and numbers are built from.
"""

from __future__ import annotations

import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict, Field

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.kg.downloads import Cache, Unavailable, sha256_of
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.modality_files import SHA256, FeatureFile, TableFile, UpstreamFile
from mmkgc_cli.state import home
from mmkgc_cli.state.atomic import read_text
from mmkgc_cli.state.parsing import parse_toml

ELEMENTS = "elements"
UPSTREAM = "upstream"
_REPORT = "report this as a bug of mmkgc, with the command and this message"

FormatName = Literal["openke", "hrt", "htr", "libkge", "nt"]


class _Entry(BaseModel):
    """Title, counts and fingerprint of the prepared graph, common to all entries."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    title: str
    entities: int = Field(gt=0)
    relations: int = Field(gt=0)
    train: int = Field(gt=0)
    valid: int = Field(gt=0)
    test: int = Field(gt=0)
    fingerprint: str = Field(pattern=SHA256)

    @property
    def counts(self) -> dict[str, int]:
        """The five counts, with the keys of `Graph.counts`."""
        return {
            key: getattr(self, key) for key in ("entities", "relations", "train", "valid", "test")
        }


class Dataset(_Entry):
    """A benchmark as published."""

    format: FormatName
    source: str = Field(pattern=r"^https://.*/$")
    mirrors: tuple[str, ...] = ()
    licence: str = Field(min_length=1)
    citation: str = Field(min_length=1)
    bibtex: str = Field(min_length=1)
    order_id: str = Field(pattern=SHA256)
    sha256: dict[str, str] = Field(min_length=1)
    tables: dict[str, TableFile] = {}
    features: tuple[FeatureFile, ...] = ()


class Variant(_Entry):
    """A benchmark derived deterministically from a published one (`of`)."""

    of: str
    recipe: Literal["clean", "resplit"]
    seed: int = Field(ge=0)
    ratios: tuple[float, float, float] | None = None


def _registry_path() -> Path:
    package = Path(__file__).resolve().parent.parent
    installed = package / "datasets.toml"
    return installed if installed.is_file() else package.parent / "datasets.toml"


@functools.cache
def _document() -> dict[str, Any]:
    return parse_toml(read_text(_registry_path()), str(_registry_path()))


@functools.cache
def registry() -> dict[str, Dataset | Variant]:
    """All registered benchmarks by name."""
    return {
        name: Variant(**entry) if "of" in entry else Dataset(**entry)
        for name, entry in _document().items()
        if name != UPSTREAM
    }


@functools.cache
def upstream() -> dict[str, UpstreamFile]:
    """The published files that tables and id maps are built from, by name."""
    return {name: UpstreamFile(**entry) for name, entry in _document()[UPSTREAM].items()}


def published_name(name: str) -> str:
    """The name of the published benchmark: `name` itself, or the original of a variant."""
    entry = registry()[name]
    return entry.of if isinstance(entry, Variant) else name


def published(name: str) -> Dataset:
    """The published benchmark: `name` itself, or the original of a variant."""
    entry = registry()[published_name(name)]
    assert isinstance(entry, Dataset), f"{name}: derived from a variant"
    return entry


def registered_variant(name: str) -> str | None:
    """The clean variant of a registered benchmark, or None."""
    return next(
        (
            key
            for key, entry in registry().items()
            if isinstance(entry, Variant) and entry.of == name
        ),
        None,
    )


def known_names() -> list[str]:
    """All names that `mmkgc prepare` knows, the built-in graph first."""
    return [ELEMENTS, *registry()]


def unknown_dataset(name: str) -> UsageError:
    """The error for a name that is neither registered nor given with files."""
    return UsageError(
        f"no graph is called {name!r}",
        fix=f"{nearest(name, known_names())} (for your own triples, pass --source and --format)",
    )


def cache_folder(name: str) -> Path:
    """The folder with the downloads of a benchmark, which its variants share."""
    return home.cache_folder() / "datasets" / published_name(name)


def fetch_files(
    dataset: Dataset, cache: Cache, base: str | None = None, *, verify: bool = True
) -> Path:
    """Downloads the files of a benchmark that are not in the cache; returns the cache folder.

    Args:
        dataset: the benchmark.
        cache: the folder and the settings of the download.
        base: an address to use instead of the registered ones.
        verify: compare the files with their registered checksums.

    Raises:
        Unavailable: when a file cannot be downloaded.
        DataError: when a downloaded file has another checksum.
    """
    bases: Sequence[str] = [dataset.source, *dataset.mirrors]
    if base is not None:
        bases = [base if base.endswith("/") else base + "/"]
    for name, expected in dataset.sha256.items():
        try:
            cache.fetch([address + name for address in bases], name, expected if verify else None)
        except Unavailable as error:
            raise Unavailable(
                str(error),
                fix=f"or get the files of {dataset.title} yourself and pass --source FOLDER",
            ) from None
    return cache.folder


def verify_files(dataset: Dataset, folder: Path) -> None:
    """Compares the files in `folder` with their registered checksums.

    Raises:
        DataError: for the first file that is missing or differs.
    """
    for name, expected in dataset.sha256.items():
        path = folder / name
        if not path.is_file():
            raise DataError(
                f"{path}: no such file",
                fix=f"get it from {dataset.source}, or omit --source to download it",
            )
        digest = sha256_of(path)
        if digest != expected:
            raise DataError(
                f"{path}: SHA-256 {digest[:12]}…, expected {expected[:12]}… for {dataset.title}",
                fix="get the published file, or pass --allow-unverified to use this one",
            )


def verify_graph(entry: Dataset | Variant, graph: Graph) -> None:
    """Compares the counts and the fingerprint of a graph with the registered ones.

    Raises:
        DataError: for the first one that differs.
    """
    for key, expected in entry.counts.items():
        count = graph.counts[key]
        if count != expected:
            raise DataError(
                f"{graph.name}: {count} {key}, expected {expected} for {entry.title}",
                fix=_REPORT,
            )
    if graph.fingerprint != entry.fingerprint:
        raise DataError(
            f"{graph.name}: fingerprint {graph.fingerprint[:12]}…, expected "
            f"{entry.fingerprint[:12]}… for {entry.title}",
            fix=_REPORT,
        )
