"""Preparation of graphs from registered benchmarks, user files and the built-in graph."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable
from dataclasses import KW_ONLY, dataclass, field
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
from mmkgc_cli.kg.sources import registered_source, user_source
from mmkgc_cli.kg.splitting import split_graph
from mmkgc_cli.kg.storage import FILE_NAME, load_graph, write_graph

# Arguments: source, name of the graph, whether to trust the order of the columns.
READERS: dict[str, Callable[[Path, str, bool], Graph]] = {
    "openke": lambda source, name, _: read_openke(source, name),
    "hrt": lambda source, name, trust: read_named(source, name, "hrt", trust_order=trust),
    "htr": lambda source, name, trust: read_named(source, name, "htr", trust_order=trust),
    "libkge": lambda source, name, _: read_libkge(source, name),
    "nt": lambda source, name, _: read_ntriples(source, name),
}

_NAME = re.compile(r"\w([\w.+ -]*[\w+-])?")
_SHA256 = re.compile(r"[0-9a-fA-F]{64}")

ELEMENTS_RATIOS = (0.8, 0.1, 0.1)


@dataclass(frozen=True)
class PrepareRequest:
    """The options of `mmkgc prepare`.

    `unseen` selects how to treat valid and test triples with an entity or a relation unseen in
    train: refuse the graph, drop them, or keep them. None keeps those of registered benchmarks,
    which are used as published, and refuses all other graphs. `clean` drops duplicates and overlaps
    between splits (`clean_graph`). `seed` is the random seed of `split` and `clean`; None is 0.
    """

    name: str
    source: str | Path | None = None
    format: str | None = None
    _: KW_ONLY
    split: tuple[float, float, float] | None = None
    clean: bool = False
    seed: int | None = None
    unseen: Literal["error", "drop", "keep"] | None = None
    labels: Path | None = None
    label_column: str | None = None
    sha256: str | None = None
    allow_unverified: bool = False
    trust_order: bool = False
    cache: Cache = field(default_factory=lambda: Cache(Path()))  # its folder is replaced


@dataclass(frozen=True)
class PreparedGraph:
    """A graph on disk, and whether it was written by an earlier call."""

    graph: Graph
    path: Path
    already_there: bool


def read(request: PrepareRequest) -> Graph:
    """Obtains, reads and checks a graph, and cleans or splits it as requested.

    Raises:
        UsageError: when options are missing or contradict each other.
        DataError: when the files are invalid.
        Unavailable: when a download fails.
    """
    if not _NAME.fullmatch(request.name):
        raise UsageError(
            f"{request.name!r} cannot name a graph",
            fix="use letters, digits, - _ . + and spaces, with no dot or space at either end",
        )
    if request.label_column is not None and request.labels is None:
        raise UsageError(
            "--label-column: requires --labels", fix="pass --labels FILE, or omit --label-column"
        )
    _refuse_ineffective_options(request)
    if request.name == datasets.ELEMENTS and request.source is None:
        graph = _read_built_in(request)
    elif request.name in datasets.registry():
        graph = _read_registered(request)
    elif request.source is None:
        raise datasets.unknown_dataset(request.name)
    else:
        graph = _read_user_files(request, str(request.source))
    if request.labels is not None:
        graph = with_labels(graph, request.labels, request.label_column)
    return graph


def _refuse_ineffective_options(request: PrepareRequest) -> None:
    """Refuses options that would have no effect.

    Raises:
        UsageError: naming the option and the reason.
    """
    built_in = request.name == datasets.ELEMENTS and request.source is None
    registered = request.name in datasets.registry()
    user_files = not built_in and not registered
    as_published = f"{request.name} is used as registered"
    resplit = "has no effect with --split, which leaves no unseen names, duplicates or overlaps"
    by_name = request.format in ("hrt", "htr")
    split = request.split is not None
    # Option, whether it is given and has no effect, reason.
    rules: list[tuple[str, bool, str]] = [
        ("--format", not user_files and request.format is not None, as_published),
        ("--split", registered and split, as_published),
        ("--seed", registered and request.seed is not None, as_published),
        ("--unseen", not user_files and request.unseen is not None, as_published),
        ("--clean", not user_files and request.clean, as_published),
        ("--sha256", not user_files and request.sha256 is not None, as_published),
        (
            "--allow-unverified",
            not registered and request.allow_unverified,
            "only registered graphs have known checksums",
        ),
        (
            "--trust-order",
            request.trust_order and not (user_files and by_name),
            "only the formats hrt and htr have columns in an order to trust",
        ),
        ("--unseen", split and request.unseen is not None, resplit),
        ("--clean", split and request.clean, resplit),
        (
            "--seed",
            user_files and request.seed is not None and not split and not request.clean,
            "has no effect without --split or --clean",
        ),
    ]
    for option, ineffective, reason in rules:
        if ineffective:
            other_name = ", or give the graph another name" if reason == as_published else ""
            raise UsageError(f"{option}: {reason}", fix=f"omit {option}{other_name}")


def _read_registered(request: PrepareRequest) -> Graph:
    entry = datasets.registry()[request.name]
    dataset = datasets.published(request.name)
    cache = dataclasses.replace(request.cache, folder=datasets.cache_folder(request.name))
    source = None if request.source is None else str(request.source)
    verify = not request.allow_unverified
    with registered_source(dataset, source, cache, verify=verify) as files:
        if verify:
            datasets.verify_files(dataset, files.path)
        graph = READERS[dataset.format](files.path, request.name, request.trust_order)
    provenance = Provenance(dataset.source, dataset.licence, dataset.citation, verified=verify)
    graph = graph.with_provenance(provenance)
    if isinstance(entry, datasets.Variant):
        graph = _make_variant(entry, graph)
    if verify:
        datasets.verify_graph(entry, graph)
    return graph


def _make_variant(variant: datasets.Variant, graph: Graph) -> Graph:
    if variant.recipe == "clean":
        return clean_graph(graph, variant.seed)
    assert variant.ratios is not None, f"{variant.title}: no ratios"
    return split_graph(graph, variant.ratios, variant.seed, fewer=True)


def _read_user_files(request: PrepareRequest, source: str) -> Graph:
    if request.format is None:
        raise UsageError(
            f"--source {source}: the format is unknown", fix=f"pass --format {'|'.join(READERS)}"
        )
    if request.sha256 is not None and not _SHA256.fullmatch(request.sha256):
        raise UsageError(
            f"--sha256 {request.sha256}: expected 64 hexadecimal digits",
            fix="pass the output of sha256sum",
        )
    with user_source(source, request.sha256, request.cache) as files:
        graph = READERS[request.format](files.path, request.name, request.trust_order)
    notes = (*files.notes, *graph.provenance.notes)
    provenance = Provenance(files.origin, verified=request.sha256 is not None, notes=notes)
    graph = graph.with_provenance(provenance)
    if request.split is not None:
        return split_graph(graph, request.split, request.seed or 0)
    require_splits(graph, source)
    if request.clean:
        graph = clean_graph(graph, request.seed or 0)
    return _handle_unseen(graph, request)


def _handle_unseen(graph: Graph, request: PrepareRequest) -> Graph:
    if request.unseen == "keep":
        return graph
    if request.unseen == "drop":
        return drop_unseen(graph)
    counts = graph.unseen()
    if any(counts.values()):
        raise DataError(
            f"{request.source}: {counts['valid']} valid and {counts['test']} test triples have an "
            "entity or a relation unseen in train",
            fix="pass --unseen drop to remove them, or --unseen keep to keep them untrained",
        )
    return graph


def _read_built_in(request: PrepareRequest) -> Graph:
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
        entity_labels=list(labels.values()),
        relation_labels=list(relation_labels.values()),
        provenance=Provenance(
            "built into mmkgc",
            "MIT",
            "The periodic table as a graph, compiled for mmkgc.",
            verified=True,
        ),
    )
    return split_graph(graph, request.split or ELEMENTS_RATIOS, request.seed or 0)


def prepare(request: PrepareRequest, folder: Path, *, overwrite: bool = False) -> PreparedGraph:
    """Writes the graph of `request` to `folder`, unless the folder already has the same graph.

    Raises:
        UsageError: when the folder has another graph and `overwrite` is off.
        DataError: as `read`, or when the graph cannot be written.
    """
    graph = read(request)
    path = folder / FILE_NAME
    existing = _read_existing(path)
    difference = _difference(existing, graph) if isinstance(existing, Graph) else existing
    if isinstance(existing, Graph) and difference is None:
        _write_modalities(request, folder)
        return PreparedGraph(existing, path, already_there=True)
    if existing is not None and not overwrite:
        raise UsageError(
            f"{path}: contains {difference}", fix="choose another --out, or pass --overwrite"
        )
    _write_modalities(request, folder)
    return PreparedGraph(graph, write_graph(graph, folder), already_there=False)


def _write_modalities(request: PrepareRequest, folder: Path) -> None:
    if request.name == datasets.ELEMENTS and request.source is None:
        from mmkgc_cli.kg.elements import modalities

        modalities.write_modalities(folder / "modalities")


def _read_existing(path: Path) -> Graph | str | None:
    """The graph at `path`, a phrase for any other file, or None when there is no file."""
    if not path.exists():
        return None
    try:
        return load_graph(path)
    except DataError:
        return "a file that is not a readable graph"


def _difference(existing: Graph, graph: Graph) -> str | None:
    """A phrase for how the existing graph differs from `graph`, or None.

    The source is ignored, so that a moved folder gives the same graph, and so are the notes, which
    are prose.
    """

    def labels(labelled: Graph) -> list[list[str] | None]:
        return [
            None if names is None else list(names)
            for names in (labelled.entity_labels, labelled.relation_labels)
        ]

    if existing.name != graph.name or existing.fingerprint != graph.fingerprint:
        return f"another graph ({existing.name})"
    if existing.order_id != graph.order_id:
        return "the same graph with its ids in another order"
    if labels(existing) != labels(graph):
        return "the same graph with other labels"
    if _origin(existing) != _origin(graph):
        return "the same graph with another licence, citation or verification"
    return None


def _origin(graph: Graph) -> Provenance:
    return dataclasses.replace(graph.provenance, source="", notes=())
