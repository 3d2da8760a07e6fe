"""``mmkgc features fetch``: download published vectors and import them as feature stores."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmkgc_cli.commands._downloads import Downloads, MaxBytesFlag, MaxSecondsFlag, OfflineFlag
from mmkgc_cli.commands._features_view import print_imported
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, printable, say

MaxBytesOption = Annotated[
    int | None,
    typer.Option(
        min=1,
        help="Most bytes of vectors that the file may declare. [default: 1 GiB, or 64 times the "
        "size of the file]",
    ),
]


def fetch(
    name: Annotated[str, typer.Argument(help="Name of a known graph (see mmkgc datasets).")],
    graph_folder: Annotated[Path, typer.Option("--graph", help="Folder of a prepared graph.")],
    modality: Annotated[
        str | None,
        typer.Argument(help="Modality, such as image. [default: all downloadable ones]"),
    ] = None,
    *,
    publisher: Annotated[
        str | None,
        typer.Option(help="Publisher of the file. [default: the first in mmkgc datasets]"),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="Local copy of the file; nothing is downloaded.")
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Store to write. [default: GRAPH/features/MODALITY.h5]"),
    ] = None,
    zero_is_missing: Annotated[
        bool, typer.Option("--zero-is-missing", help="Treat all-zero rows as missing.")
    ] = False,
    unsafe_pickle: Annotated[
        bool,
        typer.Option("--unsafe-pickle", help="Read pickles, which can run arbitrary code."),
    ] = False,
    offline: OfflineFlag = False,
    max_bytes: MaxBytesFlag = None,
    max_seconds: MaxSecondsFlag = None,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace an existing store.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Download and import published vectors."""
    from mmkgc_cli.errors import DataError, UsageError
    from mmkgc_cli.features.fetching import (
        FetchRequest,
        choose_file,
        downloadable_files,
        fetch_features,
    )
    from mmkgc_cli.kg.storage import load_graph

    if modality is None:
        for option, value in (("--source", source), ("--out", out_file)):
            if value is not None:
                raise UsageError(
                    f"{option} needs a modality",
                    fix=f"name it: mmkgc features fetch {name} MODALITY",
                )
        files, by_hand = downloadable_files(name, publisher)
        for file in by_hand:
            say(f"skipped: {file.modality}, which needs a browser ({file.page})")
    else:
        files = [choose_file(name, modality, publisher)]
    graph = load_graph(graph_folder)
    folder = graph_folder.parent if graph_folder.is_file() else graph_folder
    targets = [out_file or folder / "features" / f"{file.modality}.h5" for file in files]
    for target in targets:
        if target.exists() and not overwrite:
            raise DataError(
                f"{printable(str(target))}: exists already", fix="add --overwrite to replace it"
            )
    stores: list[dict[str, Any]] = []
    with Downloads() as downloads:
        cache = downloads.cache(offline=offline, max_bytes=max_bytes, max_seconds=max_seconds)
        for file, target in zip(files, targets, strict=True):
            request = FetchRequest(
                name=name,
                file=file,
                cache=cache,
                source=source,
                zero_is_missing=zero_is_missing,
                unsafe_pickle=unsafe_pickle,
                max_bytes=max_bytes,
            )
            result = fetch_features(request, target, graph)
            origin = {"file": file.file, "publisher": file.publisher, "page": file.page}
            stores.append({**vars(result), "path": str(result.path), **origin})
            if as_json:
                continue
            say(f"{result.path} written")
            out.print(f"{file.modality}: {file.file} of {file.publisher} ({file.licence})")
            print_imported(result, zero_is_missing, nan_is_missing=False, graph=graph)
    if as_json:
        print_json({"name": name, "graph": graph.name, "stores": stores})
