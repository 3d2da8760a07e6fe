"""``mmkgc features``: show, check, import, export, merge and mask feature stores."""

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
from mmkgc_cli.commands._help import Command, examples
from mmkgc_cli.commands._shell import JsonFlag, out, print_json, printable, say
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from mmkgc_cli.features.store import FeatureStore
    from mmkgc_cli.kg.graph import Graph

app = typer.Typer(
    help="Show, check, import, export, merge and mask feature stores.",
    no_args_is_help=True,
    rich_markup_mode=None,
    pretty_exceptions_enable=False,
)


class RowOrder(StrEnum):
    """Order of the rows of a file."""

    graph = "graph"


class Dtype(StrEnum):
    """Data types of a store."""

    float32 = "float32"
    float16 = "float16"


class Compression(StrEnum):
    """Filters of HDF5."""

    gzip = "gzip"
    lzf = "lzf"


class Prefer(StrEnum):
    """Which vector to keep of an entity in several stores."""

    first = "first"
    last = "last"


class Pattern(StrEnum):
    """Which entities are masked first."""

    random = "random"
    degree = "degree"
    relation = "relation"


StoreArgument = Annotated[Path, typer.Argument(help="Feature store (.h5).")]
GraphOption = Annotated[Path | None, typer.Option("--graph", help="Folder of a prepared graph.")]
CompressionOption = Annotated[
    Compression | None, typer.Option(help="Compression of the store; slower to read.")
]
OverwriteFlag = Annotated[bool, typer.Option("--overwrite", help="Replace an existing file.")]


@app.command(
    "show",
    cls=Command,
    epilog=examples(
        "mmkgc features show graphs/elements/features/image.h5",
        "mmkgc features show image.h5 --graph graphs/elements --json",
    ),
)
def show(
    path: Annotated[Path, typer.Argument(help="Feature store, or folder of a prepared graph.")],
    graph_folder: GraphOption = None,
    as_json: JsonFlag = False,
) -> None:
    """Show contents, provenance and coverage of feature stores."""
    from mmkgc_cli.errors import DataError
    from mmkgc_cli.features.store import FeatureStore

    paths = [path]
    if path.is_dir():
        graph_folder = graph_folder or path
        paths = sorted((path / "features").glob("*.h5"))
        if not paths:
            raise DataError(
                f"{path}: has no feature stores",
                fix="make one with `mmkgc extract` or `mmkgc features import`",
            )
    graph = _graph(graph_folder)
    shown = []
    for store_path in paths:
        with FeatureStore(store_path) as store:
            shown.append(store_object(store, graph))
    if as_json:
        print_json({"stores": shown})
    else:
        for summary in shown:
            print_store(summary)


@app.command(
    "check",
    cls=Command,
    epilog=examples(
        "mmkgc features check graphs/elements/features/image.h5",
        "mmkgc features check image.h5 --graph graphs/elements",
    ),
)
def check(path: StoreArgument, graph_folder: GraphOption = None, as_json: JsonFlag = False) -> None:
    """Check a store for damage, NaN and suspicious rows.

    Suspicious rows are zero, duplicated or equal to the mean.

    Exits with code 3 if the store is damaged, has values that are not finite, or does not fit the
    graph.
    """
    from mmkgc_cli.errors import DataError
    from mmkgc_cli.features.alignment import align
    from mmkgc_cli.features.checks import check_store
    from mmkgc_cli.features.store import FeatureStore

    graph = _graph(graph_folder)
    with FeatureStore(path) as store:
        summary = store_object(store, graph)
        store_check = check_store(store)
        if as_json:
            print_json({**summary, "check": store_check.as_object()})
        else:
            print_store(summary)
            print_check(store_check)
        if graph is not None:
            align(store, graph)
    if not store_check.is_valid:
        raise DataError(
            f"{path}: {counted(store_check.not_finite.count, 'row')} not finite, "
            f"{counted(store_check.leftover.count, 'missing row')} that are not zero",
            fix="make it again; `mmkgc features import --nan-is-missing` accepts NaN",
        )


@app.command(
    "import",
    cls=Command,
    epilog=examples(
        "mmkgc features import vectors.npy --modality image --graph graphs/mine --ids ids.txt",
        "mmkgc features import text.safetensors --modality text --graph graphs/mine",
    ),
)
def import_(
    source: Annotated[
        Path,
        typer.Argument(help="File of vectors: .npy, .npz, .h5, .safetensors, .pth, .tsv, .pkl."),
    ],
    *,
    modality: Annotated[str, typer.Option(help="Modality of the vectors, such as image.")],
    graph_folder: GraphOption = None,
    out_file: Annotated[
        Path | None,
        typer.Option("--out", help="Store to write. [default: GRAPH/features/MODALITY.h5]"),
    ] = None,
    ids: Annotated[
        Path | None,
        typer.Option(
            help="Ids of the rows: one per line, or id<TAB>row number or id<TAB>key, as in "
            "entity2id.txt."
        ),
    ] = None,
    row_order: Annotated[
        RowOrder | None,
        typer.Option(help="Rows are in the order of the graph's entities."),
    ] = None,
    key: Annotated[
        str | None, typer.Option(help="Name of the array in a file with several.")
    ] = None,
    encoder: Annotated[str, typer.Option(help="Encoder of the vectors (recorded).")] = "",
    revision: Annotated[str, typer.Option(help="Revision of the encoder (recorded).")] = "",
    preprocess: Annotated[str, typer.Option(help="Preprocessing of the inputs (recorded).")] = "",
    pooling: Annotated[str, typer.Option(help="Pooling of the vectors (recorded).")] = "",
    dtype: Annotated[
        Dtype | None, typer.Option(help="Data type of the store. [default: that of the file]")
    ] = None,
    compression: CompressionOption = None,
    zero_is_missing: Annotated[
        bool, typer.Option("--zero-is-missing", help="Treat all-zero rows as missing.")
    ] = False,
    nan_is_missing: Annotated[
        bool,
        typer.Option("--nan-is-missing", help="Treat rows with NaN or infinities as missing."),
    ] = False,
    unsafe_pickle: Annotated[
        bool,
        typer.Option("--unsafe-pickle", help="Read pickles, which can run arbitrary code."),
    ] = False,
    max_bytes: features_fetch.MaxBytesOption = None,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Make a feature store from a file of vectors."""
    from mmkgc_cli.state import sandbox

    if source.suffix.lower() in (".h5", ".hdf5"):
        sandbox.start_server()  # it starts while this process imports its modules
    from mmkgc_cli.errors import UsageError
    from mmkgc_cli.features.importing import ImportRequest, import_features
    from mmkgc_cli.features.metadata import Metadata

    metadata = Metadata(modality, encoder, revision, preprocess, pooling)
    if out_file is None:
        if graph_folder is None:
            raise UsageError(
                "neither --graph nor --out is given", fix="add --graph DIR or --out FILE"
            )
        out_file = _folder(graph_folder) / "features" / f"{modality}.h5"
    check_overwrite(out_file, overwrite)
    request = ImportRequest(
        source=source,
        metadata=metadata,
        ids=ids,
        row_order=row_order is not None,
        key=key,
        dtype=None if dtype is None else dtype.value,
        compression=None if compression is None else compression.value,
        zero_is_missing=zero_is_missing,
        nan_is_missing=nan_is_missing,
        unsafe_pickle=unsafe_pickle,
        max_bytes=max_bytes,
    )
    graph = _graph(graph_folder)
    result = import_features(request, out_file, graph)
    if as_json:
        print_json({**vars(result), "path": str(result.path)})
    else:
        say(f"{result.path} written")
        print_imported(result, zero_is_missing, nan_is_missing, graph)


app.command(
    "fetch",
    cls=Command,
    epilog=examples(
        "mmkgc features fetch mkg-w image --graph graphs/mkg-w",
        "mmkgc features fetch mkg-w image --graph graphs/mkg-w --source image.npy",
    ),
)(features_fetch.fetch)


@app.command(
    "export",
    cls=Command,
    epilog=examples(
        "mmkgc features export graphs/elements/features/image.h5 image.npz",
        "mmkgc features export image.h5 image.tsv --observed-only",
    ),
)
def export(
    path: StoreArgument,
    target: Annotated[
        Path, typer.Argument(help="File to write: .npy (with .ids.txt), .safetensors, .parquet.")
    ],
    *,
    graph_folder: GraphOption = None,
    observed_only: Annotated[
        bool, typer.Option("--observed-only", help="Omit rows without a vector.")
    ] = False,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Write a store as a file for other programs.

    With --graph, rows are in the order of its entities.
    """
    from mmkgc_cli.features.exporting import export_features
    from mmkgc_cli.features.store import FeatureStore

    with FeatureStore(path) as store:
        rows = _rows(store, _graph(graph_folder))
        if observed_only:
            rows = rows[store.present[rows]]
        check_overwrite(target, overwrite)
        files, without = export_features(store, rows, target)
    if as_json:
        names = [str(file) for file in files]
        print_json({"files": names, "rows": len(rows), "without_vector": without})
    else:
        say(f"{' and '.join(map(str, files))} written")
        out.print(f"{counted(len(rows), 'row')}, {without:,} of them zero without a vector")


@app.command(
    "merge",
    cls=Command,
    epilog=examples(
        "mmkgc features merge a.h5 b.h5 --out both.h5",
        "mmkgc features merge a.h5 b.h5 --out both.h5 --prefer first",
    ),
)
def merge(
    paths: Annotated[list[Path], typer.Argument(help="Feature stores of one encoder.")],
    *,
    out_file: Annotated[Path, typer.Option("--out", help="Store to write.")],
    prefer: Annotated[
        Prefer | None, typer.Option(help="Store to prefer if several have a vector for an id.")
    ] = None,
    compression: CompressionOption = None,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Merge stores of one encoder into one store."""
    from mmkgc_cli.features.merging import merge_stores
    from mmkgc_cli.features.store import FeatureStore

    check_overwrite(out_file, overwrite)
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


@app.command(
    "mask",
    cls=Command,
    epilog=examples(
        "mmkgc features mask image.h5 --rate 0.4 --out image-40.h5",
        "mmkgc features mask image.h5 --rate 0.4 --pattern degree --graph graphs/mine --out 40.h5",
    ),
)
def mask(
    path: StoreArgument,
    *,
    out_file: Annotated[
        Path, typer.Option("--out", help="Masked store (.h5), or list of the masked ids (.txt).")
    ],
    rate: Annotated[
        float | None, typer.Option(help="Fraction of the observed entities to mask.")
    ] = None,
    seed: Annotated[int, typer.Option(min=0, help="Random seed of the mask.")] = 0,
    pattern: Annotated[
        Pattern,
        typer.Option(
            help="Which entities are masked first: at random, those of low degree, or groups of "
            "one relation."
        ),
    ] = Pattern.random,
    mask_file: Annotated[
        Path | None, typer.Option(help="File of ids to mask, one per line, instead of --rate.")
    ] = None,
    graph_folder: GraphOption = None,
    overwrite: OverwriteFlag = False,
    as_json: JsonFlag = False,
) -> None:
    """Remove vectors for an experiment.

    The arguments determine which.

    With --graph, only entities of the graph are written, in its order.
    """
    import numpy as np

    from mmkgc_cli.errors import UsageError
    from mmkgc_cli.features.masks import MaskRequest, missing_mask, read_mask_file
    from mmkgc_cli.features.merging import write_masked
    from mmkgc_cli.features.store import FeatureStore
    from mmkgc_cli.state.atomic import write_text

    if (rate is None) == (mask_file is None):
        raise UsageError(
            "expected one of --rate and --mask-file", fix="give one of them, such as --rate 0.4"
        )
    if out_file.suffix not in (".h5", ".txt"):
        raise UsageError(
            f"--out {out_file}: unknown suffix {out_file.suffix!r}",
            fix="use .h5 for a store or .txt for a list of ids",
        )
    graph = _graph(graph_folder)
    with FeatureStore(path) as store:
        rows = _rows(store, graph)
        ids, observed = [store.ids[row] for row in rows.tolist()], store.observed[rows]
        train_id = ""
        if mask_file is not None:
            hidden = read_mask_file(mask_file, ids)
            record: dict[str, Any] = {"file": mask_file.name}
        else:
            request = MaskRequest(store.metadata.modality, rate or 0.0, seed, pattern.value)
            hidden = missing_mask(request, ids, observed, graph)
            record = {"rate": rate, "seed": seed, "pattern": pattern.value}
            if request.needs_graph and graph is not None:
                train_id = record["train_id"] = graph.train_id
        check_overwrite(out_file, overwrite)
        if out_file.suffix == ".txt":
            write_text(out_file, "".join(f"{ids[i]}\n" for i in np.flatnonzero(hidden).tolist()))
        else:
            write_masked(store, rows, hidden, out_file, record=record, train_id=train_id)
    counts = {"observed": int(observed.sum()), "missing": int((hidden & observed).sum())}
    if as_json:
        print_json({"path": str(out_file), "mask": record, **counts})
    else:
        say(f"{out_file} written")
        out.print(f"{counts['missing']:,} of {counted(counts['observed'], 'observed row')} masked")
        if unused := int((hidden & ~observed).sum()):
            out.print(f"{counted(unused, 'listed id')} had no vector before")


def _graph(folder: Path | None) -> Graph | None:
    from mmkgc_cli.kg.storage import load_graph

    return None if folder is None else load_graph(folder)


def _folder(graph: Path) -> Path:
    return graph.parent if graph.is_file() else graph


def _rows(store: FeatureStore, graph: Graph | None) -> Any:
    """Row numbers of all entities of a store, or of a graph's entities in its order."""
    import numpy as np

    from mmkgc_cli.features.alignment import align

    return np.arange(store.n) if graph is None else align(store, graph).rows


def check_overwrite(path: Path, overwrite: bool) -> None:
    """Checks that a file does not exist or may be overwritten.

    Raises:
        DataError: it exists and `overwrite` is False.
    """
    from mmkgc_cli.errors import DataError

    if path.exists() and not overwrite:
        raise DataError(
            f"{printable(str(path))}: exists already", fix="add --overwrite to replace it"
        )


def _show_written(path: Path, graph: Graph | None, as_json: bool) -> None:
    from mmkgc_cli.features.store import FeatureStore

    with FeatureStore(path) as store:
        summary = store_object(store, graph)
    if as_json:
        print_json(summary)
    else:
        say(f"{path} written")
        print_store(summary)
