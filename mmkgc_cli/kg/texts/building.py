"""`mmkgc texts build`: tables of texts and numbers from published files and a prepared graph."""

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
    """The benchmark with the tables, and the source of its published files."""

    name: str
    source: Path | None
    cache: Cache  # its folder is replaced
    allow_unverified: bool = False


@dataclass(frozen=True)
class Built:
    """A table on disk; its fields are the JSON output of `mmkgc texts build`."""

    path: Path
    entities: int | None  # entities with rows; None for an unchanged published file
    found: int | None  # entities that a published file describes
    sha256: str
    as_registered: bool  # the bytes are those of the registered table
    already_there: bool  # written by an earlier call
    made_of: dict[str, str]  # paths of the published files by registered name


def build_tables(
    request: BuildRequest, graph: Graph, folder: Path, *, overwrite: bool = False
) -> list[Built]:
    """Writes the tables of a benchmark for the entities of `graph`, in the order of the graph.

    Nothing is written unless all tables can be built.

    Raises:
        UsageError: for a benchmark without registered tables.
        DataError: when a published file is invalid, it describes no entity of the graph, a table
            differs from the registered one although its inputs are the registered ones, another
            file would be overwritten, or a table cannot be written.
        Unavailable: when a published file cannot be downloaded.
    """
    dataset = _dataset_with_tables(request.name)
    tables = {name: _build(request, name, graph) for name in dataset.tables}
    if not any(table.described for table, _ in tables.values()):
        raise DataError(
            f"{graph.name}: none of its {counted(len(graph.entities), 'entity')} is named as in "
            f"{dataset.title} (the first is {graph.entities[0]!r})",
            fix=f"pass --graph the folder of a graph from `mmkgc prepare {request.name}`",
        )
    registered = {
        name: _is_registered(request, name, table, graph) for name, (table, _) in tables.items()
    }
    existing = {name: _read_existing(folder / name) for name in tables}
    for name, (table, _) in tables.items():
        if existing[name] not in (None, table.content) and not overwrite:
            raise DataError(
                f"{folder / name}: exists with other contents",
                fix="choose another --out, or pass --overwrite",
            )
    for name, (table, _) in tables.items():
        if existing[name] != table.content:
            write_bytes(folder / name, table.content)
    return [
        Built(
            path=folder / name,
            entities=table.entities,
            found=table.described,
            sha256=_digest(table),
            as_registered=registered[name],
            already_there=existing[name] == table.content,
            made_of={file: str(path) for file, path in files.items()},
        )
        for name, (table, files) in tables.items()
    ]


def _build(request: BuildRequest, name: str, graph: Graph) -> tuple[Table, dict[str, Path]]:
    """Builds a table; returns it with the paths of its published files."""
    upstream = datasets.upstream()
    verify = not request.allow_unverified
    files = {
        file: obtain_upstream(file, upstream[file], request.source, request.cache, verify=verify)
        for file in datasets.published(request.name).tables[name].made_of
    }
    builder = BUILDERS[datasets.published_name(request.name)][name]
    return builder(files, graph.entities), files


def _is_registered(request: BuildRequest, name: str, table: Table, graph: Graph) -> bool:
    """Whether the bytes of a table are the registered ones.

    Raises:
        DataError: when they differ although files and entities are the registered ones.
    """
    dataset = datasets.published(request.name)
    digest, expected = _digest(table), dataset.tables[name].sha256
    inputs_registered = not request.allow_unverified and graph.order_id == dataset.order_id
    if inputs_registered and digest != expected:
        raise DataError(
            f"{name}: SHA-256 {digest[:12]}…, expected {expected[:12]}… for {dataset.title}",
            fix="report this as a bug of mmkgc, with the command and this message",
        )
    return digest == expected


def _digest(table: Table) -> str:
    return hashlib.sha256(table.content).hexdigest()


def _dataset_with_tables(name: str) -> datasets.Dataset:
    entries = datasets.registry()
    names = [key for key in entries if datasets.published(key).tables]
    if name not in names:
        problem = "has no registered texts or numbers" if name in entries else "unknown graph"
        raise UsageError(f"{name}: {problem}", fix=nearest(name, names))
    return datasets.published(name)


def _read_existing(path: Path) -> bytes | None:
    try:
        return path.read_bytes() if path.exists() else None
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}", fix="choose another --out"
        ) from error
