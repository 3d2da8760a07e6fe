"""``mmkgc features fetch``: published files of vectors, downloaded and imported."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkgc_cli.commands._downloads import Downloads, OfflineFlag
from mmkgc_cli.commands._features_view import print_imported
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, printable, say

if TYPE_CHECKING:
    from mmkgc_cli.kg.modality_files import FeatureFile


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
        fetch_features,
        known_files,
    )
    from mmkgc_cli.kg.downloads import Cache
    from mmkgc_cli.kg.storage import load_graph

    if modality is None:
        for option, value in (("--source", source), ("--out", out_file)):
            if value is not None:
                raise UsageError(f"{option}: say of which modality")
        files = _downloadable(name, known_files(name), publisher)
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


def _downloadable(
    name: str, known: tuple[FeatureFile, ...], publisher: str | None
) -> list[FeatureFile]:
    """The first file of each modality that has an address; the others are told about."""
    from mmkgc_cli.errors import UsageError

    chosen: dict[str, FeatureFile] = {}
    for file in known:
        if file.urls and publisher in (None, file.publisher):
            chosen.setdefault(file.modality, file)
    listed = {file.modality: file for file in reversed(known)}
    missing = [file for modality, file in listed.items() if modality not in chosen]
    if not chosen:
        first = known[0]
        raise UsageError(
            f"{name}: none of its known features can be downloaded without a browser"
            f"{' from ' + publisher if publisher else ''}; get {first.file} at {first.page} and "
            f"give the modality and --source FILE"
        )
    for file in missing:
        say(f"left out: {file.modality}, which takes a browser ({file.page})")
    return list(chosen.values())
