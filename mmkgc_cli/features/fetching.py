"""Published files of vectors: which there are, whose rows they hold, and the way into a store."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.features.importing import Imported, ImportRequest, import_features
from mmkgc_cli.features.metadata import About
from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.downloads import Cache, Unavailable
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.modality_files import (
    FeatureFile,
    obtain_features,
    obtain_upstream,
    require_address,
)
from mmkgc_cli.kg.readers.lines import read_lines
from mmkgc_cli.kg.readers.openke import read_vocabulary
from mmkgc_cli.state.atomic import write_text
from mmkgc_cli.text import counted


@dataclass(frozen=True)
class FetchRequest:
    """Which file to fetch, and how to import it; see `mmkgc features fetch --help`."""

    name: str
    file: FeatureFile
    cache: Cache  # its folder is not used
    source: Path | None = None
    zero_is_missing: bool = False
    unsafe_pickle: bool = False


def known_files(name: str) -> tuple[FeatureFile, ...]:
    """The registered files of vectors of a benchmark, or of the one that a variant is made from.

    Raises:
        UsageError: for another name, or when it has none.
    """
    entries = datasets.registry()
    known = [key for key in entries if datasets.published(key).features]
    if name not in known:
        why = "has no registered features" if name in entries else "is no known graph"
        raise UsageError(f"{name}: {why}; {nearest(name, known)}")
    return datasets.published(name).features


def chosen_file(name: str, modality: str, publisher: str | None) -> FeatureFile:
    """The first registered file of a modality, or that of a publisher.

    Raises:
        UsageError: when there is none.
    """
    files = known_files(name)
    of_modality = [file for file in files if file.modality == modality]
    if not of_modality:
        known = nearest(modality, {file.modality for file in files})
        raise UsageError(f"{name}: no published {modality!r} features are known; {known}")
    publisher = publisher or of_modality[0].publisher
    for file in of_modality:
        if file.publisher == publisher:
            return file
    known = nearest(publisher, {file.publisher for file in of_modality})
    raise UsageError(f"--publisher {publisher}: has no {modality} features of {name}; {known}")


def downloadable_files(
    name: str, publisher: str | None
) -> tuple[list[FeatureFile], list[FeatureFile]]:
    """The first file of each modality that has an address, and a file of each other modality.

    Raises:
        UsageError: for an unknown name or publisher, or when no file has an address.
    """
    files = [file for file in known_files(name) if publisher in (None, file.publisher)]
    if not files:
        known = nearest(str(publisher), {file.publisher for file in known_files(name)})
        raise UsageError(f"--publisher {publisher}: has no features of {name}; {known}")
    first = {file.modality: file for file in reversed(files)}
    chosen = {file.modality: file for file in reversed(files) if file.urls}
    if not chosen:
        raise UsageError(
            f"{name}: none of the known features can be downloaded without a browser; say which "
            f"modality and {files[0].by_hand}"
        )
    by_hand = [file for modality, file in first.items() if modality not in chosen]
    return list(reversed(chosen.values())), list(reversed(by_hand))


def fetch_features(request: FetchRequest, path: Path, graph: Graph) -> Imported:
    """Downloads a file of vectors and imports it as the store `path`, by the ids of its entry.

    Raises:
        Unavailable: when a file has to be downloaded and cannot be.
        DataError: as `obtain_features` and `import_features`, or when the file has no entity of
            the graph.
    """
    file = request.file
    if request.source is None:
        require_address(file)
    folder = datasets.cache_folder(request.name) / "features"
    cache = dataclasses.replace(request.cache, folder=folder)
    ids, doubles = _whose(request, graph)
    vectors = obtain_features(file, request.source, cache)
    id_map = folder / f"{file.publisher}-{file.file}.ids.tsv"
    write_text(id_map, "".join(f"{line}\n" for line in ids))
    # Nothing shows that a file of one's own without a registered checksum is the published one.
    known = request.source is None or file.sha256 is not None
    notes = [f"{'' if known else 'said to be '}{file.file} of {file.publisher}, {file.page}"]
    if doubles:
        notes.append(f"{counted(doubles, 'entity')} had several vectors, the first was taken")
    about = About(file.modality, file.encoder, notes=tuple(notes))
    imported = ImportRequest(
        source=vectors,
        about=about,
        ids=id_map,
        zero_is_missing=request.zero_is_missing,
        unsafe_pickle=request.unsafe_pickle,
    )
    return import_features(imported, path, graph)


def _whose(request: FetchRequest, graph: Graph) -> tuple[list[str], int]:
    """Lines of an id map as `mmkgc features import` takes it, and how many ids had several keys.

    A map by rows names every row. One by keys stops at the graph: it may list entities of others
    whose vectors are elsewhere.
    """
    file, entities = request.file, set(graph.entities)
    if file.parser == "rows":
        if graph.order_id == datasets.published(request.name).order_id:
            return list(graph.entities), 0
        path = _vocabulary(request)
        names = read_vocabulary(path, "entity")
        _hold_overlap(path, request, graph, not entities.isdisjoint(names))
        return names, 0
    path = obtain_upstream(file.ids, datasets.upstream()[file.ids], None, request.cache)
    keys: dict[str, str] = {}
    doubles: set[str] = set()
    for number, text in read_lines(path):
        entity, tab, key = text.partition("\t")
        if not tab or "\t" in key:
            raise DataError(f"{path}:{number}: {text[:80]!r} is not 'entity<TAB>key'")
        if entity in entities and keys.setdefault(entity, key) != key:
            doubles.add(entity)
    _hold_overlap(path, request, graph, bool(keys))
    return [f"{entity}\t{key}" for entity, key in keys.items()], len(doubles)


def _hold_overlap(path: Path, request: FetchRequest, graph: Graph, overlap: bool) -> None:
    if not overlap:
        raise DataError(
            f"{path}: none of its ids is an entity of {graph.name!r} (one of those is "
            f"{graph.entities[0]!r}); was that prepared from {request.name}?"
        )


def _vocabulary(request: FetchRequest) -> Path:
    """The benchmark's own list of entities, whose order the rows have."""
    dataset = datasets.published(request.name)
    ids = request.file.ids
    cache = dataclasses.replace(request.cache, folder=datasets.cache_folder(request.name))
    bases = [dataset.source, *dataset.mirrors]
    try:
        return cache.fetch([base + ids for base in bases], ids, dataset.sha256[ids])
    except Unavailable as error:
        raise Unavailable(
            f"{error}; the rows of {request.file.file} are in its order, which the graph "
            f"lacks: fetch for a graph from `mmkgc prepare {request.name}`"
        ) from None
