"""`mmkgc texts build`: from published files and a prepared graph to tables of texts and numbers."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from pathlib import Path

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.kg import datasets
from mmkgc_cli.kg.downloads import Cache
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.modality_files import obtain_upstream
from mmkgc_cli.kg.texts.tables import BUILDERS, Table
from mmkgc_cli.state.atomic import write_bytes
from mmkgc_cli.words import counted


@dataclass(frozen=True)
class BuildRequest:
    """Which tables to build, for which graph, from what."""

    name: str
    source: Path | None
    cache: Cache  # its folder is not used
    allow_unverified: bool = False


@dataclass(frozen=True)
class Built:
    """A table on the disk. `as_registered` says whether it is, byte for byte, the known one."""

    path: Path
    entities: int | None  # with rows; None for a published file as it is
    found: int | None  # entities that a published file said something of
    sha256: str
    as_registered: bool
    already_there: bool
    made_of: dict[str, str]  # path of each published file, by its registered name


def build_tables(
    request: BuildRequest, graph: Graph, folder: Path, overwrite: bool = False
) -> list[Built]:
    """Writes the tables of a benchmark for the entities of `graph`, in the graph's order.

    Nothing is written unless all of them can be.

    Raises:
        UsageError: for a benchmark without registered tables.
        DataError: when a published file cannot be used, no entity of the graph is in them, another
            file is in the way, or the storage refuses.
        Unavailable: when a file has to be downloaded and cannot be.
    """
    dataset = _with_tables(request.name)
    name = datasets.published_name(request.name)
    tables: dict[str, tuple[Table, dict[str, str]]] = {}
    for table, file in dataset.tables.items():
        paths = {
            upstream: obtain_upstream(
                upstream,
                datasets.upstream()[upstream],
                request.source,
                request.cache,
                verify=not request.allow_unverified,
            )
            for upstream in file.made_of
        }
        made = BUILDERS[name][table](paths, graph.entities)
        tables[table] = (made, {key: str(path) for key, path in paths.items()})
    found = [made.found for made, _ in tables.values() if made.found is not None]
    if not any(found):
        raise DataError(
            f"{graph.name}: none of its {counted(len(graph.entities), 'entity')} is named as in "
            f"{dataset.title} (the first is {graph.entities[0]!r}); which graph is it?"
        )
    present = {table: _present(folder / table) for table in tables}
    for table, (made, _) in tables.items():
        if present[table] not in (None, made.content) and not overwrite:
            raise DataError(f"{folder / table}: holds something else; --overwrite replaces it")
    built = []
    for table, (made, sources) in tables.items():
        if present[table] != made.content:
            write_bytes(folder / table, made.content)
        digest = hashlib.sha256(made.content).hexdigest()
        built.append(
            Built(
                folder / table,
                made.entities,
                made.found,
                digest,
                digest == dataset.tables[table].sha256,
                present[table] == made.content,
                sources,
            )
        )
    return built


def _with_tables(name: str) -> datasets.Dataset:
    entries = datasets.registry()
    known = [key for key in entries if datasets.published(key).tables]
    if name not in known:
        why = "has no registered texts or numbers" if name in entries else "is no known graph"
        raise UsageError(f"{name}: {why}; {nearest(name, known)}")
    return datasets.published(name)


def _present(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.exists() else None
    except OSError as error:
        raise DataError(f"{path}: cannot be read: {error.strerror}") from error
