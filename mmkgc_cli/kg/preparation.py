"""From source files to a prepared graph: registered benchmarks, own triples, the built-in graph."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import numpy as np

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.cleaning import clean_graph, drop_unseen
from mmkgc_cli.kg.downloads import Cache
from mmkgc_cli.kg.graph import Graph, Provenance
from mmkgc_cli.kg.labels import with_labels
from mmkgc_cli.kg.readers.libkge import read_libkge
from mmkgc_cli.kg.readers.named_triples import read_named
from mmkgc_cli.kg.readers.ntriples import read_ntriples
from mmkgc_cli.kg.readers.openke import read_openke
from mmkgc_cli.kg.readers.splits import require_splits
from mmkgc_cli.kg.sources import own_source, registered_source
from mmkgc_cli.kg.splitting import split_graph
from mmkgc_cli.kg.storage import FILE_NAME, load_graph, write_graph

# Source, name of the graph, and whether to trust the order of the columns.
READERS: dict[str, Callable[[Path, str, bool], Graph]] = {
    "openke": lambda source, name, _: read_openke(source, name),
    "hrt": lambda source, name, trust: read_named(source, name, "hrt", trust),
    "htr": lambda source, name, trust: read_named(source, name, "htr", trust),
    "libkge": lambda source, name, _: read_libkge(source, name),
    "nt": lambda source, name, _: read_ntriples(source, name),
}

_NAME = re.compile(r"\w([\w.+ -]*[\w+-])?")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")

ELEMENTS_RATIOS = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class Request:
    """What `mmkgc prepare` is asked for.

    `unseen` says what to do with valid and test triples whose entity or relation train lacks:
    refuse the graph, drop them, or keep them. None keeps them in registered benchmarks, which are
    taken as published, and refuses others. `clean` drops duplicates and overlaps between splits
    (`clean_graph`). `seed` is that of `split` and of what `clean` carves; None is 0.
    """

    name: str
    source: str | Path | None = None
    format: str | None = None
    split: tuple[float, float, float] | None = None
    clean: bool = False
    seed: int | None = None
    unseen: Literal["error", "drop", "keep"] | None = None
    labels: Path | None = None
    label_column: str | None = None
    sha256: str | None = None
    allow_unverified: bool = False
    trust_order: bool = False
    # Its folder is chosen by what is downloaded.
    cache: Cache = field(default_factory=lambda: Cache(Path()))


@dataclass(frozen=True)
class Prepared:
    """A graph on disk, and whether it was there already."""

    graph: Graph
    path: Path
    already_there: bool


def read(request: Request) -> Graph:
    """Obtains, reads, checks and, where asked, cleans or splits a graph.

    Raises:
        UsageError: when the request lacks something.
        DataError: when the files are not what they should be.
        Unavailable: when a download fails.
    """
    if not _NAME.fullmatch(request.name):
        raise UsageError(
            f"{request.name!r} cannot name a graph; use letters, digits and - _ . + and blanks, "
            "neither starting nor ending with a dot or a blank"
        )
    if request.label_column is not None and request.labels is None:
        raise UsageError("--label-column: says which column of --labels, which is not given")
    _refuse_idle_options(request)
    if request.name == datasets.ELEMENTS and request.source is None:
        graph = _elements(request)
    elif request.name in datasets.registry():
        graph = _registered(request)
    elif request.source is None:
        raise datasets.unknown_dataset(request.name)
    else:
        graph = _own(request, str(request.source))
    if request.labels is not None:
        graph = with_labels(graph, request.labels, request.label_column)
    return graph


def _refuse_idle_options(request: Request) -> None:
    """Refuses options that would change nothing: whoever gave them expects otherwise.

    Raises:
        UsageError: naming the option and why it has nothing to do.
    """
    built_in = request.name == datasets.ELEMENTS and request.source is None
    registered = request.name in datasets.registry()
    own = not built_in and not registered
    taken = "is taken as registered; for a choice of your own give the graph another name"
    resplit = "leaves no unseen names, no duplicates and no overlaps"
    by_name = request.format in ("hrt", "htr")
    split = request.split is not None
    rules: list[tuple[str, bool, str]] = [
        ("--format", not own and request.format is not None, f"{request.name} {taken}"),
        ("--split", registered and request.split is not None, f"{request.name} {taken}"),
        ("--seed", registered and request.seed is not None, f"{request.name} {taken}"),
        ("--unseen", not own and request.unseen is not None, f"{request.name} {taken}"),
        ("--clean", not own and request.clean, f"{request.name} {taken}"),
        ("--sha256", not own and request.sha256 is not None, f"{request.name} {taken}"),
        (
            "--allow-unverified",
            not registered and request.allow_unverified,
            "only registered graphs have known checksums",
        ),
        (
            "--trust-order",
            request.trust_order and not (own and by_name),
            "only hrt and htr files leave the order of columns to trust",
        ),
        (
            "--unseen",
            request.split is not None and request.unseen is not None,
            f"--split {resplit}",
        ),
        ("--clean", request.split is not None and request.clean, f"--split {resplit}"),
        (
            "--seed",
            own and request.seed is not None and not split and not request.clean,
            "nothing is drawn without --split or --clean",
        ),
    ]
    for option, idle, why in rules:
        if idle:
            raise UsageError(f"{option}: {why}")


def _registered(request: Request) -> Graph:
    entry = datasets.registry()[request.name]
    dataset = datasets.published(request.name)
    cache = dataclasses.replace(request.cache, folder=datasets.cache_folder(request.name))
    source = None if request.source is None else str(request.source)
    with registered_source(dataset, source, cache, verify=not request.allow_unverified) as found:
        if not request.allow_unverified:
            datasets.verify_files(dataset, found.path)
        graph = READERS[dataset.format](found.path, request.name, request.trust_order)
    provenance = Provenance(
        dataset.source, dataset.licence, dataset.citation, verified=not request.allow_unverified
    )
    graph = graph.with_provenance(provenance)
    if isinstance(entry, datasets.Variant):
        graph = _make_variant(entry, graph)
    if not request.allow_unverified:
        datasets.verify_graph(entry, graph)
    return graph


def _make_variant(variant: datasets.Variant, graph: Graph) -> Graph:
    if variant.recipe == "clean":
        return clean_graph(graph, variant.seed)
    assert variant.ratios is not None, f"{variant.title}: no ratios"
    return split_graph(graph, variant.ratios, variant.seed, fewer=True)


def _own(request: Request, source: str) -> Graph:
    if request.format is None:
        raise UsageError(
            f"--source {source}: say what the files are with --format {'|'.join(READERS)}"
        )
    if request.sha256 is not None and not _SHA256.fullmatch(request.sha256):
        raise UsageError(f"--sha256 {request.sha256}: expected 64 hexadecimal digits")
    with own_source(source, request.sha256, request.cache) as found:
        graph = READERS[request.format](found.path, request.name, request.trust_order)
    notes = (*found.notes, *graph.provenance.notes)
    provenance = Provenance(found.origin, verified=request.sha256 is not None, notes=notes)
    graph = graph.with_provenance(provenance)
    if request.split is not None:
        return split_graph(graph, request.split, request.seed or 0)
    require_splits(graph, source)
    if request.clean:
        graph = clean_graph(graph, request.seed or 0)
    return _hold_unseen(graph, request)


def _hold_unseen(graph: Graph, request: Request) -> Graph:
    if request.unseen == "keep":
        return graph
    if request.unseen == "drop":
        return drop_unseen(graph)
    counts = graph.unseen()
    if any(counts.values()):
        raise DataError(
            f"{request.source}: {counts['valid']} valid and {counts['test']} test triples have an "
            "entity or a relation that train lacks; say --unseen drop (they go) or --unseen keep "
            "(they stay, and no scorer can learn them)"
        )
    return graph


def _elements(request: Request) -> Graph:
    from mmkgc_cli.kg import elements

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
    return split_graph(graph, request.split or ELEMENTS_RATIOS, request.seed or 0)


def prepare(request: Request, folder: Path, overwrite: bool = False) -> Prepared:
    """Writes the graph of `request` to `folder`, unless the same graph is there already.

    Raises:
        UsageError: when something else is there and `overwrite` is off.
        DataError: as `read`, or when the storage refuses.
    """
    graph = read(request)
    path = folder / FILE_NAME
    present = _present(path)
    differs = _difference(present, graph) if isinstance(present, Graph) else present
    if isinstance(present, Graph) and differs is None:
        _write_modalities(request, folder)
        return Prepared(present, path, already_there=True)
    if present is not None and not overwrite:
        raise UsageError(f"{path}: holds {differs}; choose another --out, or pass --overwrite")
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


def _difference(present: Graph, graph: Graph) -> str | None:
    """What is there instead of `graph`, in words; None when nothing tells the two apart.

    Where the files lay is left out, so that a moved folder gives the same graph.
    """

    def labels(of: Graph) -> list[list[str] | None]:
        return [
            None if names is None else list(names)
            for names in (of.entity_labels, of.relation_labels)
        ]

    if present.name != graph.name or present.fingerprint != graph.fingerprint:
        return f"another graph ({present.name})"
    if present.order_id != graph.order_id:
        return "the same graph with its ids in another order"
    if labels(present) != labels(graph):
        return "the same graph with other labels"
    if dataclasses.replace(present.provenance, source="") != dataclasses.replace(
        graph.provenance, source=""
    ):
        return "the same graph, verified or made in another way"
    return None
