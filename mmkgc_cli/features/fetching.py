"""Published vectors: the registered files, the entities of their rows, and import as a store."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from pathlib import Path

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.features.importing import ImportRequest, ImportResult, import_features
from mmkgc_cli.features.metadata import Metadata
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
    """The file to fetch and the options of its import; see `mmkgc features fetch --help`."""

    name: str
    file: FeatureFile
    cache: Cache  # `folder` is ignored
    source: Path | None = None
    zero_is_missing: bool = False
    unsafe_pickle: bool = False
    max_bytes: int | None = None


def known_files(name: str) -> tuple[FeatureFile, ...]:
    """The registered files of vectors of a benchmark; a variant uses those of its benchmark.

    Raises:
        UsageError: the name is unknown or has no registered files.
    """
    entries = datasets.registry()
    known = [key for key in entries if datasets.published(key).features]
    if name not in known:
        reason = "has no registered features" if name in entries else "is not a known graph"
        raise UsageError(f"{name}: {reason}", fix=nearest(name, known))
    return datasets.published(name).features


def choose_file(name: str, modality: str, publisher: str | None) -> FeatureFile:
    """The first registered file of a modality, or the one of a publisher.

    Raises:
        UsageError: there is no such file.
    """
    files = known_files(name)
    candidates = [file for file in files if file.modality == modality]
    if not candidates:
        raise UsageError(
            f"{name}: no published {modality!r} features are known",
            fix=nearest(modality, {file.modality for file in files}),
        )
    publisher = publisher or candidates[0].publisher
    for file in candidates:
        if file.publisher == publisher:
            return file
    raise UsageError(
        f"--publisher {publisher}: has no {modality} features of {name}",
        fix=nearest(publisher, {file.publisher for file in candidates}),
    )


def downloadable_files(
    name: str, publisher: str | None
) -> tuple[list[FeatureFile], list[FeatureFile]]:
    """The first file with an address of each modality, and a file of each other modality.

    Raises:
        UsageError: the name or the publisher is unknown, or no file has an address.
    """
    files = [file for file in known_files(name) if publisher in (None, file.publisher)]
    if not files:
        raise UsageError(
            f"--publisher {publisher}: has no features of {name}",
            fix=nearest(str(publisher), {file.publisher for file in known_files(name)}),
        )
    first_files = {file.modality: file for file in reversed(files)}
    downloadable = {file.modality: file for file in reversed(files) if file.urls}
    if not downloadable:
        raise UsageError(
            f"{name}: none of the known features can be downloaded without a browser",
            fix=f"name a modality and {files[0].by_hand}",
        )
    by_hand = [file for modality, file in first_files.items() if modality not in downloadable]
    return list(reversed(downloadable.values())), list(reversed(by_hand))


def fetch_features(request: FetchRequest, path: Path, graph: Graph) -> ImportResult:
    """Downloads a file of vectors and imports it as the store `path`.

    Raises:
        Unavailable: a file cannot be downloaded.
        DataError: as `obtain_features` and `import_features`, or the file has no entity of the
            graph.
    """
    file = request.file
    if request.source is None:
        require_address(file)
    folder = datasets.cache_folder(request.name) / "features"
    cache = dataclasses.replace(request.cache, folder=folder)
    ids, duplicates = _id_map_lines(request, graph)
    vectors = obtain_features(file, request.source, cache)
    id_map = folder / f"{file.publisher}-{file.file}.ids.tsv"
    write_text(id_map, "".join(f"{line}\n" for line in ids))
    # A --source file without a registered checksum may differ from the published file.
    known = request.source is None or file.sha256 is not None
    notes = [f"{'' if known else 'said to be '}{file.file} of {file.publisher}, {file.page}"]
    if duplicates:
        notes.append(f"{counted(duplicates, 'entity')} had several vectors, the first was taken")
    metadata = Metadata(file.modality, file.encoder, notes=tuple(notes))
    import_request = ImportRequest(
        source=vectors,
        metadata=metadata,
        ids=id_map,
        zero_is_missing=request.zero_is_missing,
        unsafe_pickle=request.unsafe_pickle,
        max_bytes=request.max_bytes,
    )
    return import_features(import_request, path, graph)


def _id_map_lines(request: FetchRequest, graph: Graph) -> tuple[list[str], int]:
    """Lines for ``mmkgc features import --ids``, and the number of entities with several keys.

    A map by rows contains all rows. A map by keys contains only entities of the graph, since the
    index may list keys that are not in the file.
    """
    file, entities = request.file, set(graph.entities)
    if file.parser == "rows":
        if graph.order_id == datasets.published(request.name).order_id:
            return list(graph.entities), 0
        path = _vocabulary(request, graph)
        names = read_vocabulary(path, "entity")
        _require_overlap(path, request, graph, not entities.isdisjoint(names))
        return names, 0
    path = obtain_upstream(file.ids, datasets.upstream()[file.ids], None, request.cache)
    keys: dict[str, str] = {}
    duplicates: set[str] = set()
    for number, text in read_lines(path):
        entity, tab, key = text.partition("\t")
        if not tab or "\t" in key:
            raise DataError(
                f"{path}:{number}: {text[:80]!r} is not 'entity<TAB>key'",
                fix="delete this file, so that it is downloaded again",
            )
        if entity in entities and keys.setdefault(entity, key) != key:
            duplicates.add(entity)
    _require_overlap(path, request, graph, bool(keys))
    return [f"{entity}\t{key}" for entity, key in keys.items()], len(duplicates)


def _require_overlap(path: Path, request: FetchRequest, graph: Graph, overlap: bool) -> None:
    if not overlap:
        raise DataError(
            f"{path}: none of its ids is an entity of {graph.name!r} (its first entity is "
            f"{graph.entities[0]!r})",
            fix=f"give the folder of `mmkgc prepare {request.name}` as --graph",
        )


def _vocabulary(request: FetchRequest, graph: Graph) -> Path:
    """The entity list of the benchmark, which gives the order of the rows."""
    dataset = datasets.published(request.name)
    ids = request.file.ids
    cache = dataclasses.replace(request.cache, folder=datasets.cache_folder(request.name))
    bases = [dataset.source, *dataset.mirrors]
    try:
        return cache.fetch([base + ids for base in bases], ids, dataset.sha256[ids])
    except Unavailable as error:
        raise Unavailable(
            f"the rows of {request.file.file} are in the order of {ids}, which {graph.name!r} does "
            f"not record and which cannot be downloaded: {error}",
            fix=f"or give the folder of `mmkgc prepare {request.name}` as --graph",
        ) from None
