"""Extraction of a feature store: batches, skipped inputs and resuming.

Entities are ordered by input size, largest first, and then by id. Batches, and therefore the last
bits of vectors, do not depend on the order of the graph or on where an extraction was resumed, and
inputs of similar size share a batch, which keeps padding short.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import Encoder, Input, InputSet, Skip, Skipped
from mmkgc_cli.features.format import Mask
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.resumable_writer import ResumableWriter
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.state import files as durable
from mmkgc_cli.state.atomic import read_text, storage_errors, write_text
from mmkgc_cli.state.signals import StopRequest
from mmkgc_cli.text import counted, printable

_NOT_FINITE = "its vector is not finite; float32 has a larger range than other precisions"


@dataclass(frozen=True)
class ExtractRequest:
    """The options of an extraction; see `mmkgc extract --help`."""

    modality: str
    out: Path
    batch_size: int = 64
    dtype: str = "float32"
    compression: str | None = None
    limit: int | None = None
    strict: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class ExtractionResult:
    """The store, counts of entities and inputs, and the skipped inputs."""

    path: Path
    metadata: Metadata
    width: int
    dtype: str
    entities: int
    observed: int
    without_input: int  # entities without any input
    failed: int  # entities without a usable input
    not_tried: int  # entities beyond the limit
    inputs: int  # encoded by this process
    seconds: float
    resumed: int  # entities encoded by an earlier process
    already: bool  # an equal store existed before
    outside: int
    outside_example: str
    skipped: Sequence[Skipped]
    table: Path | None  # file that lists the skipped inputs


class ExtractionProgress(Protocol):
    """Display of the progress of an extraction."""

    def begin(self, inputs: int, work: int, encoder: str) -> None:
        """Starts with the total number of inputs and of work units."""

    def advance(self, inputs: int, work: int, skipped: int) -> None:
        """Adds completed inputs, work units and skipped inputs."""


def extract(
    request: ExtractRequest, graph: Graph, input_set: InputSet[Any],
    make_encoder: Callable[[], Encoder[Any]], display: ExtractionProgress,
) -> ExtractionResult:  # fmt: skip
    """Encodes inputs into a store, or resumes an interrupted extraction.

    The vector of an entity is the mean over its inputs. Inputs that cannot be used are skipped and
    reported; an entity without usable input is unobserved. The encoder, which may have to be
    downloaded, is made only if there is an input.

    Raises:
        DataError: no entity has a usable input; an input is skipped and `strict` is set; another
            store or the partial file of another job exists; or the store cannot be written.
        Interrupted: after a signal; the same request resumes the extraction.
        MmkgcError: another process is making this store.
    """
    if request.strict and input_set.skipped:
        raise _refusal(input_set.skipped[0])
    order = _order(request, graph, input_set)
    encoder = make_encoder()
    encoder.fit(_load_all(input_set, order))
    metadata = _store_metadata(request, graph, input_set, encoder)
    if request.out.exists() and not request.overwrite:
        _require_same(request, metadata, encoder.width)
        with FeatureStore(request.out) as store:
            observed = _select(store.ids, store.observed.tolist())
        skipped = _read_table(request.out)
        if request.strict and skipped:
            raise _refusal(skipped[0])
        _remove_stale_part(request, graph, metadata, encoder)
        return _result(
            request, graph, input_set, metadata, encoder, observed=observed, order=order,
            skipped=skipped, already=True,
        )  # fmt: skip
    with _open_writer(request, graph, metadata, encoder) as writer, StopRequest() as stop:
        if request.strict and writer.notes:
            raise _refusal(Skipped(*writer.notes[0]))
        extraction = _Extraction(request, input_set, encoder, writer)
        resumed = len(writer.ids)
        extraction.run(order, display, stop)
        skipped = [*input_set.skipped, *(Skipped(*note) for note in writer.notes)]
        if not extraction.observed:
            writer.discard()
            example = f"; the first: {_describe(skipped[0])}" if skipped else ""
            raise DataError(
                f"no {request.modality} input could be used{example}", fix="check --input"
            )
        _write_table(request.out, skipped)
        writer.finish(request.compression, graph.entities)
    return _result(
        request, graph, input_set, metadata, encoder, observed=extraction.observed, order=order,
        skipped=skipped, inputs=extraction.inputs, seconds=extraction.seconds, resumed=resumed,
    )  # fmt: skip


class _Extraction:
    """Encodes the entities that are not in a writer yet."""

    def __init__(
        self, request: ExtractRequest, input_set: InputSet[Any], encoder: Encoder[Any],
        writer: ResumableWriter,
    ) -> None:  # fmt: skip
        self._request, self._input_set = request, input_set
        self._encoder, self._writer = encoder, writer
        self.observed: set[str] = set()
        self.inputs, self.seconds = 0, 0.0

    def run(self, order: Sequence[str], display: ExtractionProgress, stop: StopRequest) -> None:
        done = set(self._writer.ids)
        self.observed = _select(self._writer.ids, self._writer.observed)
        inputs = self._input_set.inputs
        remaining = [name for name in order if name not in done]
        display.begin(
            sum(len(inputs[name]) for name in remaining),
            sum(_work(inputs[name]) for name in remaining),
            self._encoder.metadata.name,
        )
        start = time.monotonic()
        for batch in _batches(order, inputs, self._request.batch_size):
            if batch[0] in done:
                continue
            stop.raise_if_asked(
                f"stopped after {len(self._writer.ids):,} of {counted(len(order), 'entity')}; run "
                "the same command to resume"
            )
            vectors, observed, skipped = self._encode(batch)
            notes = [[entry.entity, entry.origin, entry.reason] for entry in skipped]
            self._writer.append(batch, vectors, observed, notes)
            self.observed |= _select(batch, observed.tolist())
            count = sum(len(inputs[name]) for name in batch)
            self.inputs += count
            self.seconds = time.monotonic() - start
            display.advance(count, sum(_work(inputs[name]) for name in batch), len(skipped))

    def _encode(self, batch: Sequence[str]) -> tuple[NDArray[np.float32], Mask, list[Skipped]]:
        """Means over the inputs of entities, float32 ``[k, width]``; also mask and skipped inputs.

        Inputs are read and encoded `batch_size` at a time, since those of one entity may not fit
        into memory.
        """
        total = np.zeros((len(batch), self._encoder.width))
        count = np.zeros(len(batch), dtype=np.int64)
        skipped: list[Skipped] = []
        rows: list[int] = []
        loaded: list[tuple[Input[Any], Any]] = []

        def flush() -> None:
            vectors = self._encoder.encode([item for _, item in loaded])
            for row, (entry, _), vector in zip(rows, loaded, vectors, strict=True):
                if np.isfinite(vector).all():
                    total[row] += vector
                    count[row] += 1
                else:
                    self._skip(entry, _NOT_FINITE, skipped)
            rows.clear()
            loaded.clear()

        for row, name in enumerate(batch):
            for entry in self._input_set.inputs[name]:
                try:
                    item = entry.load()
                    self._encoder.admit(item)
                except Skip as reason:
                    self._skip(entry, str(reason), skipped)
                    continue
                rows.append(row)
                loaded.append((entry, item))
                if len(loaded) == self._request.batch_size:
                    flush()
        if loaded:
            flush()
        observed = count > 0
        total[observed] /= count[observed, None]
        return total.astype(np.float32), observed, skipped

    def _skip(self, entry: Input[Any], reason: str, skipped: list[Skipped]) -> None:
        skipped.append(Skipped(entry.entity, entry.origin, reason))
        if self._request.strict:
            raise _refusal(skipped[-1])


def _order(request: ExtractRequest, graph: Graph, input_set: InputSet[Any]) -> list[str]:
    """The entities to encode, largest inputs first; with a limit, the first ones by id."""
    if not input_set.inputs:
        details = ""
        if input_set.skipped:
            details = f"; {counted(len(input_set.skipped), 'input')} skipped, the first: "
            details += _describe(input_set.skipped[0])
        elif input_set.outside:
            details = (
                f"; its {counted(input_set.outside, 'id')} are not in the graph (the first is "
                f"{input_set.outside_example[:80]!r}, an entity of the graph is "
                f"{graph.entities[0]!r})"
            )
        raise DataError(
            f"{input_set.source.split(' sha256 ')[0]}: no {request.modality} for any entity of "
            f"{graph.name!r}{details}",
            fix="check --input and --graph",
        )
    names = sorted(input_set.inputs)[: request.limit]
    names.sort(key=lambda name: (-_work(input_set.inputs[name]), name))
    return names


def _select(names: Sequence[str], flags: Sequence[bool]) -> set[str]:
    return {name for name, is_chosen in zip(names, flags, strict=True) if is_chosen}


def _work(inputs: Sequence[Input[Any]]) -> int:
    return sum(1 + entry.size for entry in inputs)


def _batches(order: Sequence[str], inputs: Any, size: int) -> Iterator[list[str]]:
    """Splits entities into minimal batches of at least `size` inputs."""
    batch: list[str] = []
    count = 0
    for name in order:
        batch.append(name)
        count += len(inputs[name])
        if count >= size:
            yield batch
            batch, count = [], 0
    if batch:
        yield batch


def _load_all(input_set: InputSet[Any], order: Sequence[str]) -> Iterator[Any]:
    for name in order:
        for entry in input_set.inputs[name]:
            with contextlib.suppress(Skip):
                yield entry.load()


def _store_metadata(
    request: ExtractRequest, graph: Graph, input_set: InputSet[Any], encoder: Encoder[Any]
) -> Metadata:
    has_several = any(len(inputs) > 1 for inputs in input_set.inputs.values())
    is_limited = request.limit is not None and request.limit < len(input_set.inputs)
    limit_note = (
        f"a try-out: {request.limit} of {counted(len(input_set.inputs), 'entity')} with an input"
    )
    return Metadata(
        modality=request.modality,
        encoder=encoder.metadata.name,
        revision=encoder.metadata.revision,
        preprocess="; ".join(filter(None, (input_set.preprocess, encoder.metadata.preprocess))),
        pooling="; ".join(
            filter(None, (encoder.metadata.pooling, "mean over inputs" if has_several else ""))
        ),
        graph=graph.name,
        source=input_set.source,
        train_id=input_set.train_id,
        notes=(*encoder.notes, *([limit_note] if is_limited else [])),
    )


def _require_same(request: ExtractRequest, metadata: Metadata, width: int) -> None:
    """Checks that the existing store equals the result of this request."""
    with FeatureStore(request.out) as store:
        existing = (store.metadata.as_object(), store.dtype.name, store.width)
    if existing != (metadata.as_object(), request.dtype, width):
        expected = metadata.as_object()
        differing = [key for key, value in existing[0].items() if value != expected[key]]
        raise DataError(
            f"{request.out}: exists with other settings "
            f"({', '.join(differing) or 'dtype or width'})",
            fix="add --overwrite to replace it, or choose another --out",
        )


def _open_writer(
    request: ExtractRequest, graph: Graph, metadata: Metadata, encoder: Encoder[Any]
) -> ResumableWriter:
    job = {
        "batch_size": request.batch_size,
        "entities_id": graph.entities_id,
        "limit": request.limit,
        "conditions": dict(encoder.conditions),
    }
    try:
        return ResumableWriter(request.out, metadata, encoder.width, job, dtype=request.dtype)
    except DataError:
        if not request.overwrite:
            raise
    return ResumableWriter(
        request.out, metadata, encoder.width, job, dtype=request.dtype, resume=False
    )


def _remove_stale_part(
    request: ExtractRequest, graph: Graph, metadata: Metadata, encoder: Encoder[Any]
) -> None:
    """Removes the partial file that remains after a kill between writing the store and removal."""
    if not request.out.with_name(request.out.name + ".part").exists():
        return
    with contextlib.suppress(DataError), _open_writer(request, graph, metadata, encoder) as writer:
        writer.discard()


def _result(
    request: ExtractRequest, graph: Graph, input_set: InputSet[Any], metadata: Metadata,
    encoder: Encoder[Any], *, observed: set[str], order: Sequence[str],
    skipped: Sequence[Skipped], inputs: int = 0, seconds: float = 0.0, resumed: int = 0,
    already: bool = False,
) -> ExtractionResult:  # fmt: skip
    failed = {entry.entity for entry in skipped} & set(graph.entities) - observed
    not_tried = len(input_set.inputs) - len(order)
    return ExtractionResult(
        path=request.out,
        metadata=metadata,
        width=encoder.width,
        dtype=request.dtype,
        entities=len(graph.entities),
        observed=len(observed),
        without_input=len(graph.entities) - len(observed) - len(failed) - not_tried,
        failed=len(failed),
        not_tried=not_tried,
        inputs=inputs,
        seconds=seconds,
        resumed=resumed,
        already=already,
        outside=input_set.outside,
        outside_example=input_set.outside_example,
        skipped=skipped,
        table=_table(request.out) if skipped else None,
    )


def _refusal(entry: Skipped) -> DataError:
    return DataError(
        f"{_describe(entry)} (--strict)", fix="correct this input, or remove --strict to skip it"
    )


def _describe(entry: Skipped) -> str:
    return f"{entry.origin}: {entry.reason}" + (
        f" (entity {entry.entity!r})" if entry.entity else ""
    )


def _table(store: Path) -> Path:
    return store.with_name(f"{store.stem}.skipped.tsv")


def _write_table(store: Path, skipped: Sequence[Skipped]) -> None:
    """Writes the skipped inputs to a table next to the store."""
    path = _table(store)
    if not skipped:
        with storage_errors(path):
            durable.unlink(path, missing_ok=True)
        return
    rows = [("entity", "origin", "reason")]
    rows += [(entry.entity, entry.origin, entry.reason) for entry in skipped]
    write_text(path, "".join("\t".join(map(printable, row)) + "\n" for row in rows))


def _read_table(store: Path) -> list[Skipped]:
    path = _table(store)
    if not path.is_file():
        return []
    rows = (line.split("\t") for line in read_text(path).splitlines()[1:])
    return [Skipped(*row) for row in rows if len(row) == 3]
