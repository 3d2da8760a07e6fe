"""From vectors in a file of others to a feature store: which row is whose, and which is missing."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.format import Mask
from mmkgc_cli.features.metadata import About
from mmkgc_cli.features.sources import Source, open_vectors
from mmkgc_cli.features.writing import Rows, check_distinct, write_store
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.readers.lines import check_count, parse_count, read_lines
from mmkgc_cli.text import counted

_BLOCK_BYTES = 1 << 24


@dataclass(frozen=True)
class ImportRequest:
    """What to import, and how; see `mmkgc features import --help`."""

    source: Path
    about: About
    ids: Path | None = None
    row_order: bool = False
    key: str | None = None
    dtype: str | None = None
    compression: str | None = None
    zero_is_missing: bool = False
    nan_is_missing: bool = False
    unsafe_pickle: bool = False


@dataclass(frozen=True)
class Imported:
    """What came of an import: counts of rows."""

    path: Path
    rows: int
    width: int
    dtype: str
    observed: int
    zero: int  # all-zero rows, whatever was made of them
    not_finite: int
    without_row: int  # entities of the graph
    outside: int  # ids that the graph lacks
    outside_example: str


def import_features(request: ImportRequest, path: Path, graph: Graph | None) -> Imported:
    """Writes a store at `path`; with a graph, its entities come first and in its order.

    Entities of the graph that the source lacks become unobserved rows.

    Raises:
        UsageError: when nothing says which row is whose.
        DataError: when source or id map cannot be used, a row is not finite, the store could serve
            no entity of the graph, or the storage refuses.
    """
    source = open_vectors(request.source, request.key, request.unsafe_pickle)
    ids, rows = _assigned(request, source, graph)
    outside = np.zeros(0, dtype=np.int64)
    if graph is not None:
        ids, rows, outside = _in_graph_order(request, ids, rows, graph)
    tally = _Tally()
    dtype = request.dtype or source.dtype
    about = replace(
        request.about,
        graph="" if graph is None else graph.name,
        source=f"{request.source.name} sha256 {_digest(request.source)}",
    )
    blocks = tally.blocks(request, source, ids, rows)
    write_store(
        path, about, blocks, n=len(ids), width=source.width, dtype=dtype,
        compression=request.compression,
    )  # fmt: skip
    return Imported(
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
    """Ids, and the row of the source that each has."""
    if request.ids is not None and request.row_order:
        raise UsageError("--ids and --row-order both say which row is whose; give one")
    if request.ids is not None:
        ids, rows = _read_map(request.ids, source)
    elif request.row_order:
        if graph is None:
            raise UsageError("--row-order graph: say which graph with --graph DIR")
        if len(graph.entities) != source.n:
            raise DataError(
                f"{request.source}: {counted(source.n, 'row')}, but {graph.name!r} has "
                f"{counted(len(graph.entities), 'entity')}: the order of its rows cannot be that "
                "of the graph; name them with --ids FILE"
            )
        ids, rows = list(graph.entities), np.arange(source.n)
    elif source.keys is not None:
        ids, rows = list(source.keys), np.arange(source.n)
    else:
        raise UsageError(
            f"{request.source}: its {counted(source.n, 'row')} have no names: say whose they are "
            "with --ids FILE, or that they stand in the graph's order with --row-order graph"
        )
    check_distinct(ids, request.ids or request.source)
    return ids, rows


def _read_map(path: Path, source: Source) -> tuple[list[str], NDArray[np.int64]]:
    """An id a line, for row after row; or ``id<TAB>row`` or ``id<TAB>key`` lines."""
    ids: list[str] = []
    rows: list[int] = []
    row_of = None if source.keys is None else {key: row for row, key in enumerate(source.keys)}
    columns = None
    head = ""
    for number, text in read_lines(path):
        fields = text.split("\t")
        if number == 1 and len(fields) == 1 and parse_count(text) is not None:
            head = text.strip(" ")  # entity2id.txt begins with a count; ids may be numbers, too
            continue
        columns = columns or len(fields)
        if len(fields) != columns or columns > 2:
            raise DataError(
                f"{path}:{number}: {counted(len(fields), 'column')}, expected "
                f"{'an id' if columns == 1 else 'an id and a row number or key, by tab'}"
            )
        ids.append(fields[0].strip(" "))
        if columns == 1:
            rows.append(len(rows))
        elif row_of is not None:
            row = row_of.get(fields[1].strip(" "))
            if row is None:
                raise DataError(f"{path}:{number}: {source.path} holds no key {fields[1][:80]!r}")
            rows.append(row)
        else:
            row = parse_count(fields[1])
            if row is None or row >= source.n:
                raise DataError(
                    f"{path}:{number}: {fields[1][:40]!r} is no row of {source.path}, which has "
                    f"rows 0 to {source.n - 1}"
                )
            rows.append(row)
    if head and columns != 2 and len(ids) + 1 == source.n:
        ids, rows, head = [head, *ids], list(range(source.n)), ""
    check_count(path, parse_count(head), len(ids), "ids")
    if columns != 2 and row_of is not None:
        raise DataError(
            f"{path}: one column, but the vectors of {source.path} have keys (the first is "
            f"{next(iter(row_of))!r}); expected id and key, separated by a tab"
        )
    if columns != 2 and len(ids) != source.n:
        raise DataError(f"{path}: {counted(len(ids), 'id')}, but {source.path} has {source.n} rows")
    if not ids:
        raise DataError(f"{path}: holds no id")
    return ids, np.array(rows, dtype=np.int64)


def _in_graph_order(
    request: ImportRequest, ids: list[str], rows: NDArray[np.int64], graph: Graph
) -> tuple[list[str], NDArray[np.int64], NDArray[np.int64]]:
    """The graph's entities first, -1 for those without a row; and the places of all others."""
    row_of = dict(zip(ids, rows.tolist(), strict=True))
    first = [row_of.pop(name, -1) for name in graph.entities]
    if max(first, default=-1) < 0:
        raise DataError(
            f"{request.ids or request.source}: none of its {counted(len(ids), 'id')} is an entity "
            f"of {graph.name!r} (the first is {ids[0]!r}, an entity of the graph is "
            f"{graph.entities[0]!r})"
        )
    order = [*graph.entities, *row_of]
    outside = np.arange(len(first), len(order))
    return order, np.array([*first, *row_of.values()], dtype=np.int64), outside


class _Tally:
    """Reads rows block by block and counts what they are."""

    def __init__(self) -> None:
        self.observed = self.zero = self.not_finite = 0

    def blocks(
        self, request: ImportRequest, source: Source, ids: list[str], rows: NDArray[np.int64]
    ) -> Iterator[Rows]:
        step = max(1, _BLOCK_BYTES // (4 * source.width))
        for start in range(0, len(ids), step):
            chosen = rows[start : start + step]
            there = chosen >= 0
            vectors = np.zeros((len(chosen), source.width), dtype=np.float32)
            if there.any():
                with np.errstate(over="ignore"):  # what float32 cannot hold is found as infinite
                    vectors[there] = source.read(chosen[there])
            if source.observed is not None:
                there[there] = source.observed[chosen[there]]
            yield Rows(ids[start : start + step], vectors, self._observed(request, vectors, there))

    def _observed(self, request: ImportRequest, vectors: NDArray[np.float32], there: Mask) -> Mask:
        zero = there & ~vectors.any(axis=1)
        not_finite = there & ~np.isfinite(vectors).all(axis=1)
        self.zero += int(zero.sum())
        self.not_finite += int(not_finite.sum())
        observed: Mask = there.copy()
        if request.zero_is_missing:
            observed &= ~zero
        if request.nan_is_missing:
            observed &= ~not_finite
        self.observed += int(observed.sum())
        return observed


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
