"""From source files to a prepared graph: registered benchmarks, own triples, the built-in graph."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.graph import Graph, Provenance
from mmkgc_cli.kg.readers.named_triples import read_named
from mmkgc_cli.kg.readers.openke import read_openke
from mmkgc_cli.kg.readers.splits import require_splits
from mmkgc_cli.kg.splitting import split_graph
from mmkgc_cli.kg.storage import FILE_NAME, load_graph, write_graph

# Source, name of the graph, and whether to trust the order of the columns.
READERS: dict[str, Callable[[Path, str, bool], Graph]] = {
    "openke": lambda source, name, _: read_openke(source, name),
    "hrt": lambda source, name, trust: read_named(source, name, "hrt", trust),
    "htr": lambda source, name, trust: read_named(source, name, "htr", trust),
}

_NAME = re.compile(r"\w[\w.+ -]*")

ELEMENTS_RATIOS = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Request:
    """What `mmkgc prepare` is asked for."""

    name: str
    source: Path | None = None
    format: str | None = None
    split: tuple[float, float, float] | None = None
    seed: int = 0
    allow_unverified: bool = False
    trust_order: bool = False


@dataclass(frozen=True)
class Prepared:
    """A graph on disk, and whether it was there already."""

    graph: Graph
    path: Path
    already_there: bool


def read(request: Request) -> Graph:
    """Reads, checks and, where asked, splits a graph.

    Raises:
        UsageError: when the request lacks something.
        DataError: when the files are not what they should be.
    """
    if not _NAME.fullmatch(request.name):
        raise UsageError(
            f"{request.name!r} cannot name a graph; use letters, digits and - _ . + and blanks, "
            "not starting with a dot"
        )
    if request.name == datasets.ELEMENTS and request.source is None:
        return _elements(request)
    dataset = datasets.registry().get(request.name)
    if dataset is None and request.source is None:
        raise datasets.unknown_dataset(request.name)
    if request.source is None:
        assert dataset is not None
        raise UsageError(
            f"{dataset.title} is published at {dataset.source}; fetch its files "
            f"({', '.join(dataset.sha256)}) into a folder and give --source FOLDER"
        )
    if dataset is None:
        return _own(request, request.source)
    return _registered(request, dataset, request.source)


def _registered(request: Request, dataset: datasets.Dataset, source: Path) -> Graph:
    if request.format not in (None, dataset.format):
        raise UsageError(
            f"--format {request.format}: {dataset.title} is registered as {dataset.format}; "
            "leave --format out, or give the graph a name of your own"
        )
    if request.split is not None:
        raise UsageError(
            f"--split: {dataset.title} comes with its splits; to re-split it, give the graph a "
            "name of your own"
        )
    if not source.is_dir():
        raise DataError(f"{source}: no such folder")
    if not request.allow_unverified:
        datasets.verify_files(dataset, source)
    graph = READERS[dataset.format](source, request.name, request.trust_order)
    if not request.allow_unverified:
        datasets.verify_counts(dataset, graph, source)
    provenance = Provenance(
        dataset.source, dataset.licence, dataset.citation, verified=not request.allow_unverified
    )
    return dataclasses.replace(graph, provenance=provenance)


def _own(request: Request, source: Path) -> Graph:
    if request.format is None:
        raise UsageError(
            f"--source {source}: say what the files are with --format {'|'.join(READERS)}"
        )
    graph = READERS[request.format](source, request.name, request.trust_order)
    if request.split is not None:
        graph = split_graph(graph, request.split, request.seed)
    else:
        require_splits(graph, source)
    return dataclasses.replace(graph, provenance=Provenance(source=str(source.resolve())))


def _elements(request: Request) -> Graph:
    from mmkgc_cli.kg import elements

    if request.format is not None:
        raise UsageError(f"--format {request.format}: elements is built in and has no files")

    labels, relation_labels = elements.entity_labels(), elements.relation_labels()
    entity_ids = {name: i for i, name in enumerate(labels)}
    relation_ids = {name: i for i, name in enumerate(relation_labels)}
    rows = np.array(
        [(entity_ids[h], relation_ids[r], entity_ids[t]) for h, r, t in elements.triples()],
        dtype=np.int32,
    )
    empty = np.empty((0, 3), dtype=np.int32)
    graph = Graph(
        datasets.ELEMENTS,
        list(labels),
        list(relation_labels),
        rows,
        empty,
        empty,
        list(labels.values()),
        list(relation_labels.values()),
        Provenance(
            "built into mmkgc",
            "MIT",
            "The periodic table as a graph, compiled for mmkgc.",
            verified=True,
        ),
    )
    return split_graph(graph, request.split or ELEMENTS_RATIOS, request.seed)


def prepare(request: Request, folder: Path, overwrite: bool = False) -> Prepared:
    """Writes the graph of `request` to `folder`, unless the same graph is there already.

    Raises:
        UsageError: when something else is there and `overwrite` is off.
        DataError: as `read`, or when the storage refuses.
    """
    graph = read(request)
    path = folder / FILE_NAME
    present = _present(path)
    if isinstance(present, Graph) and _same(present, graph):
        _write_modalities(request, folder)
        return Prepared(present, path, already_there=True)
    if present is not None and not overwrite:
        what = f"another graph ({present.name})" if isinstance(present, Graph) else present
        raise UsageError(f"{path}: holds {what}; choose another --out, or pass --overwrite")
    _write_modalities(request, folder)
    return Prepared(graph, write_graph(graph, folder), already_there=False)


def _write_modalities(request: Request, folder: Path) -> None:
    if request.name == datasets.ELEMENTS and request.source is None:
        from mmkgc_cli.kg.elements import modalities

        modalities.write_modalities(folder / "modalities")


def _present(path: Path) -> Graph | str | None:
    """The graph at `path`, what else is there, or None."""
    if not path.exists():
        return None
    try:
        return load_graph(path)
    except DataError:
        return "a file that is not a readable graph"


def _same(a: Graph, b: Graph) -> bool:
    """Whether two graphs agree in name, triples, ids, labels and what is known of them.

    Where the files lay is left out, so that a moved folder gives the same graph.
    """

    def key(graph: Graph) -> tuple[object, ...]:
        provenance = dataclasses.replace(graph.provenance, source="")
        labels = [
            None if names is None else list(names)
            for names in (graph.entity_labels, graph.relation_labels)
        ]
        return graph.name, graph.fingerprint, graph.order_id, labels, provenance

    return key(a) == key(b)
