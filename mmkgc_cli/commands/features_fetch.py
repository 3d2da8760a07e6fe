"""``mmkgc features fetch``: published files of vectors, downloaded and imported."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

from mmkgc_cli.commands._downloads import Downloads, OfflineFlag
from mmkgc_cli.commands._features_view import print_imported
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, printable, say


def fetch(
    name: Annotated[str, typer.Argument(help="A known graph (see mmkgc datasets).")],
    graph_folder: Annotated[Path, typer.Option("--graph", help="Folder of a prepared graph.")],
    modality: Annotated[
        str | None,
        typer.Argument(help="image, text, …; all that can be downloaded when left out."),
    ] = None,
    publisher: Annotated[
        str | None,
        typer.Option(help="Whose file, where several are known; else the first that is listed."),
    ] = None,
    source: Annotated[
        Path | None, typer.Option(help="The file, got by other means; nothing is downloaded.")
    ] = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Store to write; GRAPH/features/MODALITY.h5 when left out."),
    ] = None,
    zero_is_missing: Annotated[
        bool, typer.Option("--zero-is-missing", help="All-zero rows become unobserved.")
    ] = False,
    unsafe_pickle: Annotated[
        bool,
        typer.Option("--unsafe-pickle", help="Read pickles, which may run any code they like."),
    ] = False,
    offline: OfflineFlag = False,
    overwrite: Annotated[
        bool, typer.Option("--overwrite", help="Replace a store that is there.")
    ] = False,
    as_json: JsonFlag = False,
) -> None:
    """Download published vectors of a known graph, and make feature stores of them."""
    from mmkgc_cli.errors import DataError, UsageError
    from mmkgc_cli.features.fetching import (
        FetchRequest,
        chosen_file,
        downloadable_files,
        fetch_features,
    )
    from mmkgc_cli.kg.downloads import Cache
    from mmkgc_cli.kg.storage import load_graph

    if modality is None:
        for option, value in (("--source", source), ("--out", out_file)):
            if value is not None:
                raise UsageError(f"{option}: say of which modality")
        files, by_hand = downloadable_files(name, publisher)
        for file in by_hand:
            say(f"left out: {file.modality}, which takes a browser ({file.page})")
    else:
        files = [chosen_file(name, modality, publisher)]
    graph = load_graph(graph_folder)
    folder = graph_folder.parent if graph_folder.is_file() else graph_folder
    targets = [out_file or folder / "features" / f"{file.modality}.h5" for file in files]
    for target in targets:
        if target.exists() and not overwrite:
            raise DataError(f"{printable(str(target))}: is there already; --overwrite replaces it")
    stores: list[dict[str, Any]] = []
    with Downloads() as downloads:
        cache = Cache(Path(), offline=offline, progress=downloads.progress)
        for file, target in zip(files, targets, strict=True):
            request = FetchRequest(
                name=name,
                file=file,
                cache=cache,
                source=source,
                zero_is_missing=zero_is_missing,
                unsafe_pickle=unsafe_pickle,
            )
            done = fetch_features(request, target, graph)
            origin = {"file": file.file, "publisher": file.publisher, "page": file.page}
            stores.append({**vars(done), "path": str(done.path), **origin})
            if as_json:
                continue
            say(f"{done.path} written")
            out.print(f"{file.modality}: {file.file} of {file.publisher} ({file.licence})")
            print_imported(done, zero_is_missing, nan_is_missing=False, graph=graph)
    if as_json:
        print_json({"name": name, "graph": graph.name, "stores": stores})
