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
from mmkgc_cli.text import counted


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
        DataError: when a published file cannot be used, no entity of the graph is in them, a table
            is not the registered one though files and entities are, another file is in the way, or
            the storage refuses.
        Unavailable: when a file has to be downloaded and cannot be.
    """
    dataset = _with_tables(request.name)
    made = {table: _made(request, table, graph) for table in dataset.tables}
    if not any(table.found for table, _ in made.values()):
        raise DataError(
            f"{graph.name}: none of its {counted(len(graph.entities), 'entity')} is named as in "
            f"{dataset.title} (the first is {graph.entities[0]!r}); which graph is it?"
        )
    registered = {name: _as_registered(request, name, made[name][0], graph) for name in made}
    present = {name: _present(folder / name) for name in made}
    for name, (table, _) in made.items():
        if present[name] not in (None, table.content) and not overwrite:
            raise DataError(f"{folder / name}: holds something else; --overwrite replaces it")
    for name, (table, _) in made.items():
        if present[name] != table.content:
            write_bytes(folder / name, table.content)
    return [
        Built(
            path=folder / name,
            entities=table.entities,
            found=table.found,
            sha256=_digest(table),
            as_registered=registered[name],
            already_there=present[name] == table.content,
            made_of={file: str(path) for file, path in files.items()},
        )
        for name, (table, files) in made.items()
    ]


def _made(request: BuildRequest, name: str, graph: Graph) -> tuple[Table, dict[str, Path]]:
    """A table, and where the published files lie that it is made of."""
    upstream = datasets.upstream()
    verify = not request.allow_unverified
    files = {
        file: obtain_upstream(file, upstream[file], request.source, request.cache, verify)
        for file in datasets.published(request.name).tables[name].made_of
    }
    builder = BUILDERS[datasets.published_name(request.name)][name]
    return builder(files, graph.entities), files


def _as_registered(request: BuildRequest, name: str, table: Table, graph: Graph) -> bool:
    """Whether a table is the registered one, which it must be where all that it is made of is.

    Raises:
        DataError: when it should be and is not.
    """
    dataset = datasets.published(request.name)
    found, expected = _digest(table), dataset.tables[name].sha256
    known = not request.allow_unverified and graph.order_id == dataset.order_id
    if known and found != expected:
        raise DataError(
            f"{name}: SHA-256 {found[:12]}…, expected {expected[:12]}… for {dataset.title}; please "
            "report it"
        )
    return found == expected


def _digest(table: Table) -> str:
    return hashlib.sha256(table.content).hexdigest()


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
