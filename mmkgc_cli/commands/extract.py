"""``mmkgc extract``: feature stores from texts, numbers, pictures, sounds, videos and triples."""

from __future__ import annotations

import dataclasses
import time
from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkgc_cli.commands._help import examples
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

    from mmkgc_cli.extraction.driver import ExtractionResult
    from mmkgc_cli.extraction.registry import Modality

SHOWN = 5  # number of skipped inputs to print
SECONDS_BETWEEN_LINES = 30.0  # of progress when stderr is not a terminal


class Pooling(StrEnum):
    """Pooling of the states of a model."""

    cls = "cls"
    mean = "mean"
    pooler = "pooler"


class Precision(StrEnum):
    """Precision of matrix products in an encoder."""

    float32 = "float32"
    bf16 = "bf16"
    fp16 = "fp16"


EXAMPLES = examples(
    "mmkgc extract image --graph graphs/elements --input pictures/ --encoder colour-grid",
    "mmkgc extract text --graph graphs/elements --input text.tsv --encoder hashed-ngrams",
)


def extract(
    modality: Annotated[
        str,
        typer.Argument(help="Modality: image, text, numeric, audio, video or structure."),
    ],
    *,
    graph_folder: GraphOption = None,
    source: Annotated[
        Path | None,
        typer.Option(
            "--input",
            help="Source of the inputs: file, folder, index or archive (not for structure).",
        ),
    ] = None,
    encoder: Annotated[
        str | None,
        typer.Option(
            metavar="NAME|PATH",
            help="Encoder of --list, or a model of transformers by folder or hub name. "
            "[default: see --list]",
        ),
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Store to write. [default: GRAPH/features/MODALITY.h5]"),
    ] = None,
    columns: Annotated[
        str | None,
        typer.Option(
            help="Columns with texts, or the column with paths (names or numbers, separated by "
            "commas)."
        ),
    ] = None,
    pooling: Annotated[
        Pooling | None,
        typer.Option(help="Pooling of tokens or positions. [default: that of the model]"),
    ] = None,
    min_count: Annotated[
        int | None,
        typer.Option(
            min=1, help="Minimum number of entities of an attribute in quantiles. [default: 10]"
        ),
    ] = None,
    weights: Annotated[Path | None, typer.Option(help="Weights of vgg16 (.safetensors).")] = None,
    batch_size: Annotated[int, typer.Option(min=1, help="Inputs per batch.")] = 64,
    device: Annotated[Device, typer.Option(help="Device of the encoder.")] = Device.auto,
    precision: Annotated[
        Precision | None,
        typer.Option(help="Precision of matrix products in the encoder. [default: float32]"),
    ] = None,
    dtype: Annotated[Dtype, typer.Option(help="Data type of the store.")] = Dtype.float32,
    compression: CompressionOption = None,
    limit: Annotated[
        int | None, typer.Option(min=1, help="Maximum number of entities, for a test.")
    ] = None,
    strict: Annotated[
        bool, typer.Option("--strict", help="Fail at the first input that cannot be used.")
    ] = False,
    overwrite: OverwriteFlag = False,
    list_encoders: Annotated[
        bool, typer.Option("--list", help="List the encoders of MODALITY and exit.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Extract a feature store of MODALITY from files.

    After an interruption, the same command resumes.

    Inputs that cannot be used are skipped and listed; entities without a usable input are
    unobserved.
    """
    from mmkgc_cli.errors import UsageError
    from mmkgc_cli.extraction.contract import EncoderOptions, InputOptions
    from mmkgc_cli.extraction.driver import ExtractRequest
    from mmkgc_cli.extraction.driver import extract as run
    from mmkgc_cli.extraction.registry import find_modality
    from mmkgc_cli.kg.storage import load_graph

    modality_entry = find_modality(modality)
    if list_encoders:
        _list(modality_entry, as_json)
        return
    if graph_folder is None:
        raise UsageError("no graph is given", fix="add --graph DIR")
    if columns is not None and "columns" not in modality_entry.input_options:
        raise UsageError(f"--columns: {modality} does not use it", fix="remove --columns")
    column_names = tuple(filter(None, (name.strip() for name in (columns or "").split(","))))
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
    input_set = modality_entry.find(graph, InputOptions(source, column_names))
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
    if input_set.preprocess:
        say(f"{modality}: {input_set.preprocess}")
    with ExtractDisplay(modality_entry) as display:
        result = run(
            request, graph, input_set, lambda: modality_entry.encoder(encoder, options), display
        )
    if as_json:
        print_json(_as_object(result))
    else:
        _print(result, modality_entry)


class ExtractDisplay:
    """Progress on stderr: a bar on a terminal, otherwise a line every 30 seconds."""

    def __init__(self, modality_entry: Modality) -> None:
        self._modality = modality_entry
        self._total = self._done = self._skipped = 0
        self._start = self._said_at = time.monotonic()
        self._progress: Progress | None = None
        self._task: Any = None
        if log.is_terminal:
            from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

            self._progress = Progress(
                TextColumn(modality_entry.name),
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
        """Starts the bar, which counts work units, since large inputs come first."""
        self._total = inputs
        self._start = self._said_at = time.monotonic()
        if self._progress:
            self._progress.start()
            self._task = self._progress.add_task("", total=work, note="")
        say(f"{counted(inputs, self._modality.unit)} through {encoder}")

    def advance(self, inputs: int, work: int, skipped: int) -> None:
        """Advances the bar."""
        self._done += inputs
        self._skipped += skipped
        now = time.monotonic()
        rate = self._done / max(now - self._start, 1e-9)
        note = f"{self._done:,}/{self._total:,}, {_rate(rate, self._modality)}"
        if self._skipped:
            note += f", {self._skipped:,} skipped"
        if self._progress:
            self._progress.update(self._task, advance=work, note=note)
        elif now - self._said_at > SECONDS_BETWEEN_LINES:
            self._said_at = now
            say(note)


def _list(modality_entry: Modality, as_json: bool) -> None:
    if as_json:
        encoders = modality_entry.encoders
        print_json({e.name: {"about": e.help, "default": e.default} for e in encoders})
        return
    rows = [(e.name, e.help + (" (default)" if e.default else "")) for e in modality_entry.encoders]
    out.print(table("", ["encoder", ""], rows, texts=2))
    out.print("or a suitable model of transformers, by folder or hub name")


def _rate(rate: float, modality_entry: Modality) -> str:
    plural = counted(2, modality_entry.unit).partition(" ")[2]
    return f"{rate:,.0f} {plural}/s" if rate >= 10 else f"{rate:.1f} {plural}/s"


def _as_object(result: ExtractionResult) -> dict[str, Any]:
    return {
        **{
            k: v
            for k, v in vars(result).items()
            if k not in ("metadata", "path", "table", "skipped")
        },
        "path": str(result.path),
        "table": None if result.table is None else str(result.table),
        "rate": result.inputs / result.seconds if result.seconds else None,
        "about": result.metadata.as_object(),
        "skipped": [dataclasses.asdict(entry) for entry in result.skipped],
    }


def _print(result: ExtractionResult, modality_entry: Modality) -> None:
    """Prints counts, and the first skipped inputs."""
    say(f"{result.path} {'exists with the same settings' if result.already else 'written'}")
    article = "an" if modality_entry.name[0] in "aeiou" else "a"
    missing = [
        (result.without_input, f"without {article} {modality_entry.name} input"),
        (result.failed, "without a usable input"),
        (result.not_tried, "beyond --limit"),
    ]
    counts = "".join(f", {count:,} {state}" for count, state in missing if count)
    out.print(f"{counted(result.entities, 'entity')}: {result.observed:,} observed{counts}")
    line = f"  {result.width:,} columns of {result.dtype}"
    if result.inputs:
        line += f", {_rate(result.inputs / max(result.seconds, 1e-9), modality_entry)}"
    if result.resumed:
        line += f"; {counted(result.resumed, 'entity')} from the interrupted run"
    out.print(line)
    if result.outside:
        out.print(
            f"  {counted(result.outside, 'id')} not in the graph, such as "
            f"{printable(result.outside_example)!r}, skipped"
        )
    if not result.skipped:
        return
    more = "" if len(result.skipped) <= SHOWN else ", the first:"
    out.print(f"{counted(len(result.skipped), 'input')} skipped; {result.table} lists them{more}")
    for entry in result.skipped[:SHOWN]:
        out.print(
            printable(f"  {entry.entity or '(unknown entity)'} ({entry.origin}): {entry.reason}")
        )
