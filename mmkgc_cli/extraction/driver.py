"""From inputs to a feature store: batches, what is left out, and going on after a kill.

Entities are taken in an order of their own, large inputs first and then by id. So batches, and with
them the last bits of vectors, follow neither from the order of the graph nor from where a resume
began; and inputs of like size share a batch, which keeps padding short.
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
from mmkgc_cli.extraction.contract import Encoder, Found, Input, Skip, Skipped
from mmkgc_cli.features.format import Mask
from mmkgc_cli.features.metadata import About
from mmkgc_cli.features.resumable_writer import StorePart
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.state.atomic import read_text, storage_errors, write_text
from mmkgc_cli.state.signals import StopRequest
from mmkgc_cli.text import counted

_NOT_FINITE = "its vector is not finite; float32 holds more than other precisions"


@dataclass(frozen=True)
class ExtractRequest:
    """What to make; see `mmkgc extract --help`."""

    modality: str
    out: Path
    batch_size: int = 64
    dtype: str = "float32"
    compression: str | None = None
    limit: int | None = None
    strict: bool = False
    overwrite: bool = False


@dataclass(frozen=True)
class Extracted:
    """What came of an extraction."""

    path: Path
    about: About
    width: int
    dtype: str
    entities: int
    observed: int
    without_input: int  # entities for which there was nothing at all
    failed: int  # entities for which nothing could be used
    not_tried: int  # entities beyond the limit
    inputs: int  # encoded by this process
    seconds: float
    resumed: int  # entities that were done before
    already: bool  # the store was there, made in the same way
    outside: int
    outside_example: str
    skipped: Sequence[Skipped]
    table: Path | None  # of all that was skipped


class Display(Protocol):
    """Whoever shows how far an extraction is."""

    def begin(self, inputs: int, work: int, encoder: str) -> None:
        """There is so much to do, in inputs and in work."""

    def advance(self, inputs: int, work: int, skipped: int) -> None:
        """So much more was done."""


def extract(
    request: ExtractRequest, graph: Graph, found: Found[Any],
    make_encoder: Callable[[], Encoder[Any]], display: Display,
) -> Extracted:  # fmt: skip
    """Makes a store of what an encoder sees in the inputs, or goes on making it.

    The encoder, which may have to be downloaded, is made once there is something to encode.

    Several inputs of an entity become the mean of their vectors. An input that cannot be used is
    left out and told of; an entity without any other is unobserved.

    Raises:
        DataError: when no entity has a usable input; for the first input that cannot be used, if
            `strict`; when another store, or what is left of another job, is in the way; when the
            storage refuses.
        Interrupted: after a signal; the same request then goes on.
        MmkgcError: while another process makes this store.
    """
    if request.strict and found.skipped:
        raise _refusal(found.skipped[0])
    order = _order(request, graph, found)
    encoder = make_encoder()
    encoder.fit(_readable(found, order))
    about = _about(request, graph, found, encoder)
    if request.out.exists() and not request.overwrite:
        _require_same(request, about, encoder.width)
        with FeatureStore(request.out) as store:
            seen = _named(store.ids, store.observed.tolist())
        skipped = _read_table(request.out)
        if request.strict and skipped:
            raise _refusal(skipped[0])
        _drop_part(request, graph, about, encoder)
        return _result(request, graph, found, about, encoder, seen, order, skipped, already=True)
    with _open_part(request, graph, about, encoder) as part, StopRequest() as stop:
        if request.strict and part.notes:
            raise _refusal(Skipped(*part.notes[0]))
        run = _Run(request, found, encoder, part)
        resumed = len(part.ids)
        run.go(order, display, stop)
        skipped = [*found.skipped, *(Skipped(*note) for note in part.notes)]
        if not run.observed:
            part.discard()
            first = f"; the first: {_told(skipped[0])}" if skipped else ""
            raise DataError(f"no {request.modality} input could be used{first}")
        _write_table(request.out, skipped)
        part.finish(request.compression, graph.entities)
    return _result(
        request, graph, found, about, encoder, run.observed, order, skipped,
        inputs=run.inputs, seconds=run.seconds, resumed=resumed,
    )  # fmt: skip


class _Run:
    """Encodes what a part lacks."""

    def __init__(
        self, request: ExtractRequest, found: Found[Any], encoder: Encoder[Any], part: StorePart
    ) -> None:
        self._request, self._found, self._encoder, self._part = request, found, encoder, part
        self.observed: set[str] = set()
        self.inputs, self.seconds = 0, 0.0

    def go(self, order: Sequence[str], display: Display, stop: StopRequest) -> None:
        done = set(self._part.ids)
        self.observed = _named(self._part.ids, self._part.observed)
        inputs = self._found.inputs
        left = [name for name in order if name not in done]
        display.begin(
            sum(len(inputs[name]) for name in left),
            sum(_work(inputs[name]) for name in left),
            self._encoder.about.name,
        )
        start = time.monotonic()
        for batch in _batches(order, inputs, self._request.batch_size):
            if batch[0] in done:
                continue
            stop.raise_if_asked(
                f"stopped after {len(self._part.ids):,} of {counted(len(order), 'entity')}; the "
                "same command goes on from there"
            )
            vectors, seen, skipped = self._encoded(batch)
            notes = [[one.entity, one.origin, one.reason] for one in skipped]
            self._part.append(batch, vectors, seen, notes)
            self.observed |= _named(batch, seen.tolist())
            count = sum(len(inputs[name]) for name in batch)
            self.inputs += count
            self.seconds = time.monotonic() - start
            display.advance(count, sum(_work(inputs[name]) for name in batch), len(skipped))

    def _encoded(self, batch: Sequence[str]) -> tuple[NDArray[np.float32], Mask, list[Skipped]]:
        """Means float32 ``[k, width]`` of the inputs of entities; an input is read when it is due.

        An entity may have more inputs than fit into memory: they are encoded `batch_size` at a
        time.
        """
        total = np.zeros((len(batch), self._encoder.width))
        count = np.zeros(len(batch), dtype=np.int64)
        skipped: list[Skipped] = []
        rows: list[int] = []
        loaded: list[tuple[Input[Any], Any]] = []

        def flush() -> None:
            vectors = self._encoder.encode([item for _, item in loaded])
            for row, (one, _), vector in zip(rows, loaded, vectors, strict=True):
                if np.isfinite(vector).all():
                    total[row] += vector
                    count[row] += 1
                else:
                    self._leave_out(one, _NOT_FINITE, skipped)
            rows.clear()
            loaded.clear()

        for row, name in enumerate(batch):
            for one in self._found.inputs[name]:
                try:
                    item = one.load()
                    self._encoder.admit(item)
                except Skip as reason:
                    self._leave_out(one, str(reason), skipped)
                    continue
                rows.append(row)
                loaded.append((one, item))
                if len(loaded) == self._request.batch_size:
                    flush()
        if loaded:
            flush()
        seen = count > 0
        total[seen] /= count[seen, None]
        return total.astype(np.float32), seen, skipped

    def _leave_out(self, one: Input[Any], reason: str, skipped: list[Skipped]) -> None:
        skipped.append(Skipped(one.entity, one.origin, reason))
        if self._request.strict:
            raise _refusal(skipped[-1])


def _order(request: ExtractRequest, graph: Graph, found: Found[Any]) -> list[str]:
    """The entities to work on: large inputs first; with a limit, the first few by id."""
    if not found.inputs:
        hint = ""
        if found.skipped:
            hint = f"; {counted(len(found.skipped), 'input')} left out, the first: "
            hint += _told(found.skipped[0])
        elif found.outside:
            hint = (
                f"; its {counted(found.outside, 'id')} are others (the first is "
                f"{found.outside_example[:80]!r}, an entity of the graph is {graph.entities[0]!r})"
            )
        raise DataError(
            f"{found.source.split(' sha256 ')[0]}: no {request.modality} for any entity of "
            f"{graph.name!r}{hint}"
        )
    names = sorted(found.inputs)[: request.limit]
    names.sort(key=lambda name: (-_work(found.inputs[name]), name))
    return names


def _named(names: Sequence[str], chosen: Sequence[bool]) -> set[str]:
    return {name for name, is_chosen in zip(names, chosen, strict=True) if is_chosen}


def _work(inputs: Sequence[Input[Any]]) -> int:
    return sum(1 + one.size for one in inputs)


def _batches(order: Sequence[str], inputs: Any, size: int) -> Iterator[list[str]]:
    """Entities with at least `size` inputs together, and no more of them than that takes."""
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


def _readable(found: Found[Any], order: Sequence[str]) -> Iterator[Any]:
    for name in order:
        for one in found.inputs[name]:
            with contextlib.suppress(Skip):
                yield one.load()


def _about(
    request: ExtractRequest, graph: Graph, found: Found[Any], encoder: Encoder[Any]
) -> About:
    several = any(len(inputs) > 1 for inputs in found.inputs.values())
    limit = request.limit is not None and request.limit < len(found.inputs)
    tried = f"a try-out: {request.limit} of {counted(len(found.inputs), 'entity')} with an input"
    return About(
        modality=request.modality,
        encoder=encoder.about.name,
        revision=encoder.about.revision,
        preprocess="; ".join(filter(None, (found.preprocess, encoder.about.preprocess))),
        pooling="; ".join(
            filter(None, (encoder.about.pooling, "mean over inputs" if several else ""))
        ),
        graph=graph.name,
        source=found.source,
        train_id=found.train_id,
        notes=(*encoder.notes, *([tried] if limit else [])),
    )


def _require_same(request: ExtractRequest, about: About, width: int) -> None:
    """Refuses a store that is not what this request would make."""
    with FeatureStore(request.out) as store:
        there = (store.about.as_object(), store.dtype.name, store.width)
    if there != (about.as_object(), request.dtype, width):
        mine = about.as_object()
        differing = [key for key, value in there[0].items() if value != mine[key]]
        raise DataError(
            f"{request.out}: is there already, made in another way "
            f"({', '.join(differing) or 'another type of numbers'}); --overwrite replaces it"
        )


def _open_part(
    request: ExtractRequest, graph: Graph, about: About, encoder: Encoder[Any]
) -> StorePart:
    job = {
        "batch_size": request.batch_size,
        "entities_id": graph.entities_id,
        "limit": request.limit,
        "conditions": dict(encoder.conditions),
    }
    try:
        return StorePart(request.out, about, encoder.width, job, dtype=request.dtype)
    except DataError:
        if not request.overwrite:
            raise
    return StorePart(request.out, about, encoder.width, job, dtype=request.dtype, resume=False)


def _drop_part(request: ExtractRequest, graph: Graph, about: About, encoder: Encoder[Any]) -> None:
    """Removes what a kill left between the last two steps: the store done, its part still there."""
    if not request.out.with_name(request.out.name + ".part").exists():
        return
    with contextlib.suppress(DataError), _open_part(request, graph, about, encoder) as part:
        part.discard()


def _result(
    request: ExtractRequest, graph: Graph, found: Found[Any], about: About, encoder: Encoder[Any],
    observed: set[str], order: Sequence[str], skipped: Sequence[Skipped], *, inputs: int = 0,
    seconds: float = 0.0, resumed: int = 0, already: bool = False,
) -> Extracted:  # fmt: skip
    tried = set(order)
    failed = {one.entity for one in skipped} & set(graph.entities) - observed
    not_tried = len(found.inputs) - len(tried)
    return Extracted(
        path=request.out,
        about=about,
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
        outside=found.outside,
        outside_example=found.outside_example,
        skipped=skipped,
        table=_table(request.out) if skipped else None,
    )


def _refusal(one: Skipped) -> DataError:
    return DataError(f"{_told(one)} (--strict)")


def _told(one: Skipped) -> str:
    return f"{one.origin}: {one.reason}" + (f" (entity {one.entity!r})" if one.entity else "")


def _table(store: Path) -> Path:
    return store.with_name(f"{store.stem}.skipped.tsv")


def _write_table(store: Path, skipped: Sequence[Skipped]) -> None:
    """Writes what was left out beside the store, one a line."""
    path = _table(store)
    if not skipped:
        with storage_errors(path):
            path.unlink(missing_ok=True)
        return
    rows = [("entity", "origin", "reason")]
    rows += [(one.entity, one.origin, one.reason) for one in skipped]
    write_text(path, "".join("\t".join(map(_cell, row)) + "\n" for row in rows))


def _read_table(store: Path) -> list[Skipped]:
    path = _table(store)
    if not path.is_file():
        return []
    rows = (line.split("\t") for line in read_text(path).splitlines()[1:])
    return [Skipped(*row) for row in rows if len(row) == 3]


def _cell(text: str) -> str:
    return "".join(c if c.isprintable() else repr(c)[1:-1] for c in text)
