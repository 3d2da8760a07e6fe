"""``mmkgc features``: vectors of modalities by entity, what they are worth, and files of others."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from mmkgc_cli.commands import features_fetch
from mmkgc_cli.commands._features_view import (
    print_check,
    print_imported,
    print_store,
    store_object,
)
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, printable, say
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from mmkgc_cli.features.store import FeatureStore
    from mmkgc_cli.kg.graph import Graph

app = typer.Typer(
    help="Show, check, import, fetch, export, merge and mask feature stores.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class RowOrder(StrEnum):
    """Whose order the rows of a file have."""

    graph = "graph"


class Dtype(StrEnum):
    """Types of stored numbers."""

    float32 = "float32"
    float16 = "float16"


class Compression(StrEnum):
    """Filters of HDF5."""

    gzip = "gzip"
    lzf = "lzf"


class Prefer(StrEnum):
    """Which of several vectors for an entity counts."""

    first = "first"
    last = "last"


class Pattern(StrEnum):
    """Who goes missing first."""

    random = "random"
    degree = "degree"
    relation = "relation"


StoreArgument = Annotated[Path, typer.Argument(help="Feature store (.h5).")]
GraphOption = Annotated[Path | None, typer.Option("--graph", help="Folder of a prepared graph.")]
CompressionOption = Annotated[
    Compression | None, typer.Option(help="Smaller on disk, slower to read.")
]
OverwriteFlag = Annotated[bool, typer.Option("--overwrite", help="Replace a file that is there.")]


@app.command("show")
def show(
    path: Annotated[Path, typer.Argument(help="Feature store, or the folder of a graph.")],
    graph_folder: GraphOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show what stores hold, where it comes from, and how much of a graph it covers."""
    from mmkgc_cli.errors import DataError
    from mmkgc_cli.features.store import FeatureStore

    paths = [path]
    if path.is_dir():
        graph_folder = graph_folder or path
        paths = sorted((path / "features").glob("*.h5"))
        if not paths:
            raise DataError(f"{path}: no features there; make some with `mmkgc features import`")
    graph = _graph(graph_folder)
    shown = []
    for one in paths:
        with FeatureStore(one) as store:
            shown.append(store_object(store, graph))
    if as_json:
        print_json({"stores": shown})
    else:
        for about in shown:
            print_store(about)


@app.command("check")
def check(path: StoreArgument, graph_folder: GraphOption = None, as_json: JsonFlag = False) -> None:
    """Read all of a store: damage, NaN, and rows that are zero, constant, equal or a mean.

    Exit code 3 when it is damaged, holds values that are not finite, or does not fit the graph.
    """
    from mmkgc_cli.errors import DataError
    from mmkgc_cli.features.alignment import align
    from mmkgc_cli.features.checks import check_store
    from mmkgc_cli.features.store import FeatureStore

    graph = _graph(graph_folder)
    with FeatureStore(path) as store:
        about = store_object(store, graph)
        found = check_store(store)
        if as_json:
            print_json({**about, "check": found.as_object()})
        else:
            print_store(about)
            print_check(found)
        if graph is not None:
            align(store, graph)
    if not found.sound:
        raise DataError(
            f"{path}: {counted(found.not_finite.count, 'row')} not finite, "
            f"{counted(found.leftover.count, 'missing row')} that are not zero; make it again"
        )


@app.command("import")
def import_(
    source: Annotated[
        Path,
        typer.Argument(help="File of vectors: .npy, .npz, .h5, .safetensors, .pth, .tsv, .pkl."),
    ],
    modality: Annotated[str, typer.Option(help="What they are vectors of: image, text, …")],
    graph_folder: GraphOption = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Store to write; GRAPH/features/MODALITY.h5 when left out."),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(
            help="Whose row is which: an id a line, or id and row number (or key) by tab, as in "
            "entity2id.txt."
        ),
    ] = None,
    row_order: Annotated[
        RowOrder | None,
        typer.Option(help="graph: row 0 is the graph's first entity, and so on."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Which array of a file that holds several.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="What made the vectors.")] = "",
    revision: Annotated[str, typer.Option(help="Of the encoder.")] = "",
    preprocess: Annotated[str, typer.Option(help="What was done before.")] = "",
    pooling: Annotated[str, typer.Option(help="How several vectors became one.")] = "",
    dtype: Annotated[Dtype | None, typer.Option(help="Of the store; else as in the file.")] = None,
    compression: CompressionOption = None,
    zero_is_missing: Annotated[
        bool, typer.Option("--zero-is-missing", help="All-zero rows become unobserved.")
    ] = False,
    nan_is_missing: Annotated[
        bool,
        typer.Option("--nan-is-missing", help="Rows with NaN or infinities become unobserved."),
    ] = False,
    unsafe_pickle: Annotated[
        bool,
        typer.Option("--unsafe-pickle", help="Read pickles, which may run any code they like."),
    ] = False,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a feature store from a file of vectors."""
    from mmkgc_cli.errors import UsageError
    from mmkgc_cli.features.importing import ImportRequest, import_features
    from mmkgc_cli.features.metadata import About

    about = About(modality, encoder, revision, preprocess, pooling)
    if out_file is None:
        if graph_folder is None:
            raise UsageError("say whose features these are with --graph DIR, or where with --out")
        out_file = _folder(graph_folder) / "features" / f"{modality}.h5"
    may_write(out_file, overwrite)
    request = ImportRequest(
        source=source,
        about=about,
        ids=ids,
        row_order=row_order is not None,
        key=key,
        dtype=None if dtype is None else dtype.value,
        compression=None if compression is None else compression.value,
        zero_is_missing=zero_is_missing,
        nan_is_missing=nan_is_missing,
        unsafe_pickle=unsafe_pickle,
    )
    graph = _graph(graph_folder)
    done = import_features(request, out_file, graph)
    if as_json:
        print_json({**vars(done), "path": str(done.path)})
    else:
        say(f"{done.path} written")
        print_imported(done, zero_is_missing, nan_is_missing, graph)


app.command("fetch")(features_fetch.fetch)


@app.command("export")
def export(
    path: StoreArgument,
    target: Annotated[
        Path, typer.Argument(help="File to write: .npy (with .ids.txt), .safetensors, .parquet.")
    ],
    graph_folder: GraphOption = None,
    observed_only: Annotated[
        bool, typer.Option("--observed-only", help="Leave rows without a vector out.")
    ] = False,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a store as a file for other programs; with --graph, its entities in its order."""
    from mmkgc_cli.features.exporting import export_features
    from mmkgc_cli.features.store import FeatureStore

    with FeatureStore(path) as store:
        rows = _rows(store, _graph(graph_folder))
        if observed_only:
            rows = rows[store.present[rows]]
        may_write(target, overwrite)
        files, without = export_features(store, rows, target)
    if as_json:
        names = [str(file) for file in files]
        print_json({"files": names, "rows": len(rows), "without_vector": without})
    else:
        say(f"{' and '.join(map(str, files))} written")
        out.print(f"{counted(len(rows), 'row')}, {without:,} of them zero for want of a vector")


@app.command("merge")
def merge(
    paths: Annotated[list[Path], typer.Argument(help="Feature stores of one encoder.")],
    out_file: Annotated[Path, typer.Option("--out", help="Store to write.")],
    prefer: Annotated[
        Prefer | None, typer.Option(help="Which vector counts where several stores have one.")
    ] = None,
    compression: CompressionOption = None,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Write one store with the rows of several."""
    from mmkgc_cli.features.merging import merge_stores
    from mmkgc_cli.features.store import FeatureStore

    may_write(out_file, overwrite)
    stores = [FeatureStore(path) for path in paths]
    merge_stores(
        stores,
        out_file,
        None if prefer is None else prefer.value,
        None if compression is None else compression.value,
    )
    for store in stores:
        store.close()
    _show_written(out_file, None, as_json)


@app.command("mask")
def mask(
    path: StoreArgument,
    out_file: Annotated[
        Path, typer.Option("--out", help="Store without the vectors (.h5), or list of ids (.txt).")
    ],
    rate: Annotated[
        float | None, typer.Option(help="Share of the observed entities that goes missing.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Decides which.")] = 0,
    pattern: Annotated[
        Pattern,
        typer.Option(
            help="random: any; degree: rather those with few train triples; relation: groups that "
            "mostly occur in one relation."
        ),
    ] = Pattern.random,
    mask_file: Annotated[
        Path | None, typer.Option(help="Ids that go missing, one a line, in place of --rate.")
    ] = None,
    graph_folder: GraphOption = None,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Take vectors away as an experiment wants it, always the same ones for the same arguments.

    With --graph only its entities count, in its order.
    """
    import numpy as np

    from mmkgc_cli.errors import UsageError
    from mmkgc_cli.features.masks import MaskRequest, listed, missing
    from mmkgc_cli.features.merging import write_masked
    from mmkgc_cli.features.store import FeatureStore
    from mmkgc_cli.state.atomic import write_text

    if (rate is None) == (mask_file is None):
        raise UsageError("say how much goes missing with --rate, or who with --mask-file: one")
    if out_file.suffix not in (".h5", ".txt"):
        raise UsageError(f"{out_file}: expected a name that ends in .h5 (a store) or .txt (ids)")
    graph = _graph(graph_folder)
    with FeatureStore(path) as store:
        rows = _rows(store, graph)
        ids, observed = [store.ids[row] for row in rows.tolist()], store.observed[rows]
        train_id = ""
        if mask_file is not None:
            gone = listed(mask_file, ids)
            record: dict[str, Any] = {"file": mask_file.name}
        else:
            request = MaskRequest(store.about.modality, rate or 0.0, seed, pattern.value)
            gone = missing(request, ids, observed, graph)
            record = {"rate": rate, "seed": seed, "pattern": pattern.value}
            if request.needs_graph and graph is not None:
                train_id = record["train_id"] = graph.train_id
        may_write(out_file, overwrite)
        if out_file.suffix == ".txt":
            write_text(out_file, "".join(f"{ids[i]}\n" for i in np.flatnonzero(gone).tolist()))
        else:
            write_masked(store, rows, gone, record, train_id, out_file)
    counts = {"observed": int(observed.sum()), "missing": int((gone & observed).sum())}
    if as_json:
        print_json({"path": str(out_file), "mask": record, **counts})
    else:
        say(f"{out_file} written")
        out.print(f"{counts['missing']:,} of {counted(counts['observed'], 'observed row')} went")
        if idle := int((gone & ~observed).sum()):
            out.print(f"{counted(idle, 'listed id')} had no vector before")


def _graph(folder: Path | None) -> Graph | None:
    from mmkgc_cli.kg.storage import load_graph

    return None if folder is None else load_graph(folder)


def _folder(graph: Path) -> Path:
    return graph.parent if graph.is_file() else graph


def _rows(store: FeatureStore, graph: Graph | None) -> Any:
    """Rows of a store: all of them, or those of a graph's entities."""
    import numpy as np

    from mmkgc_cli.features.alignment import align

    return np.arange(store.n) if graph is None else align(store, graph).rows


def may_write(path: Path, overwrite: bool) -> None:
    """Refuses to replace a file that nobody said may go.

    Raises:
        DataError: naming it.
    """
    from mmkgc_cli.errors import DataError

    if path.exists() and not overwrite:
        raise DataError(f"{printable(str(path))}: is there already; --overwrite replaces it")


def _show_written(path: Path, graph: Graph | None, as_json: bool) -> None:
    from mmkgc_cli.features.store import FeatureStore

    with FeatureStore(path) as store:
        about = store_object(store, graph)
    if as_json:
        print_json(about)
    else:
        say(f"{path} written")
        print_store(about)
