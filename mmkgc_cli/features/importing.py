"""Import of a file of vectors as a feature store: ids of the rows, and missing rows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.format import Mask
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.sizes import check_bytes, check_room
from mmkgc_cli.features.sources import open_vectors
from mmkgc_cli.features.vectors import Opening, Source
from mmkgc_cli.features.writing import FeatureBlock, check_distinct, write_store
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.readers.lines import check_count, parse_count, read_lines
from mmkgc_cli.text import counted

_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class ImportRequest:
    """The file to import and the options; see `mmkgc features import --help`."""

    source: Path
    metadata: Metadata
    ids: Path | None = None
    row_order: bool = False
    key: str | None = None
    dtype: str | None = None
    compression: str | None = None
    zero_is_missing: bool = False
    nan_is_missing: bool = False
    unsafe_pickle: bool = False
    max_bytes: int | None = None


@dataclass(frozen=True)
class ImportResult:
    """Result of an import: counts of rows."""

    path: Path
    rows: int
    width: int
    dtype: str
    observed: int
    zero: int  # all-zero rows, observed or not
    not_finite: int
    without_row: int  # entities of the graph without a row in the file
    outside: int  # ids that are not in the graph
    outside_example: str


def import_features(request: ImportRequest, path: Path, graph: Graph | None) -> ImportResult:
    """Writes a store at `path`; with a graph, its entities come first, in its order.

    Entities of the graph that are not in the source become unobserved rows.

    Raises:
        UsageError: the ids of the rows are not specified.
        DataError: the source or the id map cannot be used, a row is not finite, no id is an entity
            of the graph, or the store cannot be written.
    """
    opening = Opening(request.key, request.unsafe_pickle, request.max_bytes, _scratch(path))
    with open_vectors(request.source, opening) as source:
        return _import(request, source, path, graph)


def _scratch(path: Path) -> Path:
    """A folder on the disk of the store, for temporary files."""
    return next(parent for parent in path.absolute().parents if parent.is_dir())


def _import(
    request: ImportRequest, source: Source, path: Path, graph: Graph | None
) -> ImportResult:
    ids, rows = _assigned(request, source, graph)
    outside = np.zeros(0, dtype=np.int64)
    if graph is not None:
        ids, rows, outside = _in_graph_order(request, ids, rows, graph)
    tally = _Tally()
    dtype = request.dtype or source.dtype
    size = len(ids) * source.width * np.dtype(dtype).itemsize
    check_bytes(
        request.source, f"{len(ids):,} rows of width {source.width:,}", size, request.max_bytes
    )
    if request.compression is None:
        check_room(path, size)
    metadata = replace(
        request.metadata,
        graph="" if graph is None else graph.name,
        source=f"{request.source.name} sha256 {_digest(request.source)}",
    )
    blocks = tally.blocks(request, source, ids, rows)
    write_store(
        path, metadata, blocks, n=len(ids), width=source.width, dtype=dtype,
        compression=request.compression,
    )  # fmt: skip
    return ImportResult(
        path=path,
        rows=len(ids),
        width=source.width,
        dtype=dtype,
        observed=tally.observed,
        zero=tally.zero,
        not_finite=tally.not_finite,
        without_row=int((rows < 0).sum()),
        outside=len(outside),
        outside_example=ids[outside[0]] if len(outside) else "",
    )


def _assigned(
    request: ImportRequest, source: Source, graph: Graph | None
) -> tuple[list[str], NDArray[np.int64]]:
    """The ids of the store, and the source row of each."""
    if request.ids is not None and request.row_order:
        raise UsageError("--ids and --row-order exclude each other", fix="remove one of them")
    if request.ids is not None:
        ids, rows = _read_map(request.ids, source)
    elif request.row_order:
        if graph is None:
            raise UsageError("--row-order graph needs a graph", fix="add --graph DIR")
        if len(graph.entities) != source.n:
            raise DataError(
                f"{request.source}: {counted(source.n, 'row')}, but {graph.name!r} has "
                f"{counted(len(graph.entities), 'entity')}: the rows are not in the order of the "
                "graph",
                fix="give the ids of the rows with --ids FILE",
            )
        ids, rows = list(graph.entities), np.arange(source.n)
    elif source.keys is not None:
        ids, rows = list(source.keys), np.arange(source.n)
    else:
        raise UsageError(
            f"{request.source}: its {counted(source.n, 'row')} have no ids",
            fix="give them with --ids FILE, or add --row-order graph if they are in the order of "
            "the graph",
        )
    check_distinct(ids, request.ids or request.source)
    return ids, rows


def _read_map(path: Path, source: Source) -> tuple[list[str], NDArray[np.int64]]:
    """Reads an id map: one id per line, in row order, or ``id<TAB>row`` or ``id<TAB>key``."""
    ids: list[str] = []
    rows: list[int] = []
    row_of = None if source.keys is None else {key: row for row, key in enumerate(source.keys)}
    columns = None
    count_line = ""
    for number, text in read_lines(path):
        fields = text.split("\t")
        if number == 1 and len(fields) == 1 and parse_count(text) is not None:
            # The first line of entity2id.txt is a count, but ids may be numbers, too.
            count_line = text.strip(" ")
            continue
        columns = columns or len(fields)
        if len(fields) != columns or columns > 2:
            raise DataError(
                f"{path}:{number}: {counted(len(fields), 'column')}, expected "
                f"{'an id' if columns == 1 else 'an id and a row number or key'}",
                fix="write one id per line, or id<TAB>row or id<TAB>key lines",
            )
        ids.append(fields[0].strip(" "))
        if columns == 1:
            rows.append(len(rows))
        elif row_of is not None:
            row = row_of.get(fields[1].strip(" "))
            if row is None:
                raise DataError(
                    f"{path}:{number}: {source.path} has no key {fields[1][:80]!r}",
                    fix="correct the key or remove the line",
                )
            rows.append(row)
        else:
            row = parse_count(fields[1])
            if row is None or row >= source.n:
                raise DataError(
                    f"{path}:{number}: {fields[1][:40]!r} is not a row of {source.path}, expected "
                    f"0 to {source.n - 1}",
                    fix="correct the row number",
                )
            rows.append(row)
    if count_line and columns != 2 and len(ids) + 1 == source.n:
        ids, rows, count_line = [count_line, *ids], list(range(source.n)), ""
    check_count(path, parse_count(count_line), len(ids), "ids")
    if columns != 2 and row_of is not None:
        raise DataError(
            f"{path}: one column, but the vectors of {source.path} have keys (the first is "
            f"{next(iter(row_of))!r})",
            fix="write id<TAB>key lines",
        )
    if columns != 2 and len(ids) != source.n:
        raise DataError(
            f"{path}: {counted(len(ids), 'id')}, but {source.path} has {source.n} rows",
            fix="list one id per row, or write id<TAB>row lines",
        )
    if not ids:
        raise DataError(f"{path}: contains no id", fix="list one id per line")
    return ids, np.array(rows, dtype=np.int64)


def _in_graph_order(
    request: ImportRequest, ids: list[str], rows: NDArray[np.int64], graph: Graph
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """Ids with the graph's entities first, their rows (-1 for none), and positions of the rest."""
    row_of = dict(zip(ids, rows.tolist(), strict=True))
    graph_rows = [row_of.pop(name, -1) for name in graph.entities]
    if max(graph_rows, default=-1) < 0:
        raise DataError(
            f"{request.ids or request.source}: none of its {counted(len(ids), 'id')} is an entity "
            f"of {graph.name!r} (the first is {ids[0]!r}, an entity of the graph is "
            f"{graph.entities[0]!r})",
            fix="check --ids and --graph",
        )
    order = [*graph.entities, *row_of]
    outside = np.arange(len(graph_rows), len(order))
    return order, np.array([*graph_rows, *row_of.values()], dtype=np.int64), outside


class _Tally:
    """Reads rows in blocks and counts observed, zero and non-finite rows."""

    def __init__(self) -> None:
        self.observed = self.zero = self.not_finite = 0

    def blocks(
        self, request: ImportRequest, source: Source, ids: list[str], rows: NDArray[np.int64]
    ) -> Iterator[FeatureBlock]:
        step = max(1, _BLOCK_BYTES // (4 * source.width))
        for start in range(0, len(ids), step):
            block_rows = rows[start : start + step]
            has_vector = block_rows >= 0
            vectors = np.zeros((len(block_rows), source.width), dtype=np.float32)
            if has_vector.any():
                with np.errstate(over="ignore"):  # overflow becomes infinity, which is checked
                    vectors[has_vector] = source.read(block_rows[has_vector])
            if source.observed is not None:
                has_vector[has_vector] = source.observed[block_rows[has_vector]]
            yield FeatureBlock(
                ids[start : start + step], vectors, self._observed(request, vectors, has_vector)
            )

    def _observed(
        self, request: ImportRequest, vectors: NDArray[np.float32], has_vector: Mask
    ) -> Mask:
        zero = has_vector & ~vectors.any(axis=1)
        not_finite = has_vector & ~np.isfinite(vectors).all(axis=1)
        self.zero += int(zero.sum())
        self.not_finite += int(not_finite.sum())
        observed: Mask = has_vector.copy()
        if request.zero_is_missing:
            observed &= ~zero
        if request.nan_is_missing:
            observed &= ~not_finite
        self.observed += int(observed.sum())
        return observed


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
