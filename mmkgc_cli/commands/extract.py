"""``mmkgc extract``: from what modalities are made of to feature stores."""

from __future__ import annotations

import dataclasses
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkgc_cli.commands._shell import (
    Device,
    JsonFlag,
    log,
    out,
    print_json,
    printable,
    say,
    table,
)
from mmkgc_cli.commands.features import CompressionOption, Dtype, GraphOption, OverwriteFlag
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from rich.progress import Progress

    from mmkgc_cli.extraction.driver import Extracted
    from mmkgc_cli.extraction.registry import Modality

SHOWN = 5  # skipped inputs that are printed
SECONDS_BETWEEN_LINES = 30.0  # without a terminal


class Pooling(StrEnum):
    """How a model's vectors become one."""

    cls = "cls"
    mean = "mean"
    pooler = "pooler"


class Precision(StrEnum):
    """In which an encoder multiplies."""

    float32 = "float32"
    bf16 = "bf16"
    fp16 = "fp16"


def extract(
    modality: Annotated[
        str, typer.Argument(help="What to make: image, text, numeric, audio, video, structure.")
    ],
    graph_folder: GraphOption = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="Table by tabs, JSON lines, or folder of texts; for image, audio and video a "
            "folder, an archive, or an index by tabs; structure takes none.",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="When left out, bert-base-uncased for text and structure, quantiles for numeric, "
            "ViT for image, AST for audio, VideoMAE for video. hashed-ngrams, colour-grid and "
            "log-mel-stats need no weights, vgg16 takes --weights; or any model of transformers, "
            "by folder or hub name.",
        ),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Store to write; GRAPH/features/MODALITY.h5 when left out."),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Which columns of a table (names or numbers) or JSON keys hold texts, with "
            "commas between; which one of an index holds paths."
        ),
    ] = None,
    pooling: Annotated[
        Pooling | None, typer.Option(help="Of tokens or places; else as the model was made for.")
    ] = None,
    min_count: Annotated[
        int | None,
        typer.Option(
            min=1, help="Entities that an attribute needs for a column of quantiles. [default: 10]"
        ),
    ] = None,
    weights: Annotated[
        Path | None, typer.Option(help="Weights of vgg16, a safetensors file.")
    ] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs at a time.")] = 64,
    device: Annotated[Device, typer.Option(help="Where to compute.")] = Device.auto,
    precision: Annotated[
        Precision | None, typer.Option(help="Of products in the encoder. [default: float32]")
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Of the store.")] = Dtype.float32,
    compression: CompressionOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Only so many entities, for a try-out.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Stop at the first input that cannot be used.")
    ] = False,
    overwrite: OverwriteFlag = False,
    list_encoders: Annotated[
        bool, typer.Option("--list", help="Only show the encoders of MODALITY.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a feature store of MODALITY; when stopped or killed, the same command goes on.

    Inputs that cannot be used are left out and listed; their entities are then unobserved.
    """
    from mmkgc_cli.errors import UsageError
    from mmkgc_cli.extraction.contract import EncoderOptions, InputOptions
    from mmkgc_cli.extraction.driver import ExtractRequest
    from mmkgc_cli.extraction.driver import extract as run
    from mmkgc_cli.extraction.registry import modality as modality_of
    from mmkgc_cli.kg.storage import load_graph

    kind = modality_of(modality)
    if list_encoders:
        _list(kind, as_json)
        return
    if graph_folder is None:
        raise UsageError("say whose features these are with --graph DIR")
    if columns is not None and "columns" not in kind.input_options:
        raise UsageError(f"--columns: {modality} has no use for it")
    chosen = tuple(filter(None, (name.strip() for name in (columns or "").split(","))))
    options = EncoderOptions(
        batch_size=batch_size,
        device=device.value,
        pooling=None if pooling is None else pooling.value,
        precision=None if precision is None else precision.value,
        min_count=min_count,
        weights=weights,
    )
    graph = load_graph(graph_folder)
    folder = graph_folder.parent if graph_folder.is_file() else graph_folder
    found = kind.find(graph, InputOptions(source, chosen))
    request = ExtractRequest(
        modality=modality,
        out=out_file or folder / "features" / f"{modality}.h5",
        batch_size=batch_size,
        dtype=dtype.value,
        compression=None if compression is None else compression.value,
        limit=limit,
        strict=strict,
        overwrite=overwrite,
    )
    if found.preprocess:
        say(f"{modality}: {found.preprocess}")
    with ExtractDisplay(kind) as display:
        done = run(request, graph, found, lambda: kind.encoder(encoder, options), display)
    if as_json:
        print_json(_as_object(done))
    else:
        _print(done, kind)


class ExtractDisplay:
    """Progress on stderr: a live bar on a terminal, a line now and then elsewhere."""

    def __init__(self, kind: Modality) -> None:
        self._kind = kind
        self._total = self._done = self._skipped = 0
        self._start = self._said_at = time.monotonic()
        self._progress: Progress | None = None
        self._task: Any = None
        if log.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn(kind.name),
                BarColumn(),
                TextColumn("{task.fields[note]}"),
                TextColumn("ETA"),
                TimeRemainingColumn(),
                console=log.console,
                transient=True,
            )

    def __enter__(self) -> ExtractDisplay:
        return self

    def __exit__(self, *_: object) -> None:
        if self._progress:
            self._progress.stop()

    def begin(self, inputs: int, work: int, encoder: str) -> None:
        """Says what is about to be done; the bar counts work, since large inputs come first."""
        self._total = inputs
        self._start = self._said_at = time.monotonic()
        if self._progress:
            self._progress.start()
            self._task = self._progress.add_task("", total=work, note="")
        say(f"{counted(inputs, self._kind.unit)} through {encoder}")

    def advance(self, inputs: int, work: int, skipped: int) -> None:
        """Moves the bar."""
        self._done += inputs
        self._skipped += skipped
        now = time.monotonic()
        rate = self._done / max(now - self._start, 1e-9)
        note = f"{self._done:,}/{self._total:,}, {_rate(rate, self._kind)}"
        if self._skipped:
            note += f", {self._skipped:,} skipped"
        if self._progress:
            self._progress.update(self._task, advance=work, note=note)
        elif now - self._said_at > SECONDS_BETWEEN_LINES:
            self._said_at = now
            say(note)


def _list(kind: Modality, as_json: bool) -> None:
    if as_json:
        print_json({e.name: {"about": e.help, "default": e.default} for e in kind.encoders})
        return
    rows = [(e.name, e.help + (" (default)" if e.default else "")) for e in kind.encoders]
    out.print(table("", ["encoder", ""], rows, texts=2))
    out.print("or any model of transformers that fits, by folder or hub name")


def _rate(rate: float, kind: Modality) -> str:
    plural = counted(2, kind.unit).partition(" ")[2]
    return f"{rate:,.0f} {plural}/s" if rate >= 10 else f"{rate:.1f} {plural}/s"


def _as_object(done: Extracted) -> dict[str, Any]:
    return {
        **{k: v for k, v in vars(done).items() if k not in ("about", "path", "table", "skipped")},
        "path": str(done.path),
        "table": None if done.table is None else str(done.table),
        "rate": done.inputs / done.seconds if done.seconds else None,
        "about": done.about.as_object(),
        "skipped": [dataclasses.asdict(one) for one in done.skipped],
    }


def _print(done: Extracted, kind: Modality) -> None:
    """Says what came of it, and what was left out."""
    say(f"{done.path} {'is there already, made in the same way' if done.already else 'written'}")
    article = "an" if kind.name[0] in "aeiou" else "a"
    missing = [
        (done.without_input, f"without {article} {kind.name} input"),
        (done.failed, "whose input cannot be used"),
        (done.not_tried, "beyond --limit"),
    ]
    rest = "".join(f", {count:,} {what}" for count, what in missing if count)
    out.print(f"{counted(done.entities, 'entity')}: {done.observed:,} observed{rest}")
    line = f"  {done.width:,} columns of {done.dtype}"
    if done.inputs:
        line += f", {_rate(done.inputs / max(done.seconds, 1e-9), kind)}"
    if done.resumed:
        line += f"; {counted(done.resumed, 'entity')} were done before"
    out.print(line)
    if done.outside:
        out.print(
            f"  {counted(done.outside, 'id')} that {'is' if done.outside == 1 else 'are'} no "
            "entity of the graph, such as "
            f"{printable(done.outside_example)!r}, left out"
        )
    if not done.skipped:
        return
    more = "" if len(done.skipped) <= SHOWN else ", the first:"
    out.print(f"{counted(len(done.skipped), 'input')} skipped; {done.table} lists them{more}")
    for one in done.skipped[:SHOWN]:
        out.print(printable(f"  {one.entity or '(unknown entity)'} ({one.origin}): {one.reason}"))
