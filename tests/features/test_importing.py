from __future__ import annotations

import os
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features import sources
from mmkgc_cli.features.exporting import export_features
from mmkgc_cli.features.importing import ImportRequest, ImportResult, import_features
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.graph import Graph
from tests.features.small import graph_of, vectors, write

IDS = ["a", "b é", "c", "d", "e"]
VALUES = vectors(5, 4)
GRAPH = graph_of(IDS)


def bring(source: Path, graph: Graph | None = GRAPH, **options: Any) -> ImportResult:
    request = ImportRequest(source, Metadata("image"), **options)
    return import_features(request, source.parent / "out.h5", graph)


def result(folder: Path) -> dict[str, list[float]]:
    """The observed vectors of the store that `bring` made."""
    with FeatureStore(folder / "out.h5") as store:
        values = store.read()
        return {name: values[i].tolist() for i, name in enumerate(store.ids) if store.observed[i]}


EXPECTED = {name: VALUES[i].tolist() for i, name in enumerate(IDS)}


def _hdf5(path: Path, arrays: dict[str, Any]) -> None:
    with h5py.File(path, "w") as file:
        for name, array in arrays.items():
            file[name] = array


MATRICES: dict[str, Callable[[Path], object]] = {
    "v.npy": lambda path: np.save(path, VALUES),
    "fortran.npy": lambda path: np.save(path, np.asfortranarray(VALUES.astype(np.float64))),
    "axes.npy": lambda path: np.save(path, VALUES[:, None, :]),
    "v.npz": lambda path: np.savez(path, VALUES),
    "v.h5": lambda path: _hdf5(path, {"x": VALUES, "y": np.arange(3)}),
    "v.safetensors": lambda path: safetensors.torch.save_file(
        {"x": torch.from_numpy(VALUES)}, path
    ),
    "v.pth": lambda path: torch.save(torch.from_numpy(VALUES), path),
    "old.pth": lambda path: torch.save(
        torch.from_numpy(VALUES), path, _use_new_zipfile_serialization=False
    ),
    "embedding.pt": lambda path: torch.save({"weight": torch.from_numpy(VALUES)}, path),
    "parameter.pt": lambda path: torch.save(torch.nn.Parameter(torch.from_numpy(VALUES)), path),
}


@pytest.mark.parametrize("name", MATRICES)
def test_rows_by_number_are_imported_by_a_map_or_in_the_order_of_the_graph(
    tmp_path: Path, name: str
) -> None:
    source = tmp_path / name
    MATRICES[name](source)
    with pytest.raises(UsageError, match="its 5 rows have no ids; give them with --ids"):
        bring(source)
    done = bring(source, row_order=True)
    assert (done.rows, done.width, done.observed, done.dtype) == (5, 4, 5, "float32")
    assert result(tmp_path) == EXPECTED
    ids = tmp_path / "ids.txt"
    ids.write_text("".join(f"{name}\n" for name in IDS[::-1]), encoding="utf-8")
    bring(source, ids=ids)
    assert result(tmp_path) == {name: VALUES[4 - i].tolist() for i, name in enumerate(IDS)}
    ids.write_text("2\nc\t0\r\na\t4\n", encoding="utf-8")  # as entity2id.txt
    done = bring(source, ids=ids)
    assert result(tmp_path) == {"c": VALUES[0].tolist(), "a": VALUES[4].tolist()}
    assert done.without_row == 3


KEYED: dict[str, Callable[[Path], object]] = {
    "v.npz": lambda path: np.savez(path, **{f"K{i}": VALUES[i] for i in range(5)}),
    "v.h5": lambda path: _hdf5(path, {f"K{i}": VALUES[i : i + 1] for i in range(5)}),
    "v.safetensors": lambda path: safetensors.torch.save_file(
        {f"K{i}": torch.from_numpy(VALUES[i]) for i in range(5)}, path
    ),
    "v.pth": lambda path: torch.save(
        {f"K{i}": torch.from_numpy(VALUES[i]) for i in range(5)}, path
    ),
    "v.tsv": lambda path: path.write_text(
        "".join(f"K{i}\t" + "\t".join(map(repr, VALUES[i].tolist())) + "\n" for i in range(5))
    ),
}


@pytest.mark.parametrize("name", KEYED)
def test_vectors_by_key_are_imported_by_an_index_or_under_their_keys(
    tmp_path: Path, name: str
) -> None:
    source, index = tmp_path / name, tmp_path / "index.txt"
    KEYED[name](source)
    index.write_text("".join(f"{name}\tK{i}\n" for i, name in enumerate(IDS)), encoding="utf-8")
    bring(source, ids=index)
    assert result(tmp_path) == EXPECTED
    bring(source, None)
    assert result(tmp_path) == {f"K{i}": VALUES[i].tolist() for i in range(5)}
    index.write_text("a\tK9\n")
    with pytest.raises(DataError, match=r"index.txt:1: .* has no key 'K9'"):
        bring(source, ids=index)
    index.write_text("a\nb\n")
    with pytest.raises(DataError, match=r"index.txt: one column, but .* have keys"):
        bring(source, ids=index)
    with pytest.raises(DataError, match="none of its 5 ids is an entity of 'ring' .*'K0'.*'a'"):
        bring(source)


class Bomb:
    def __reduce__(self) -> tuple[Any, ...]:
        return os.system, ("touch exploded",)


def _dump(path: Path, value: Any) -> None:
    path.write_bytes(pickle.dumps(value))


@pytest.mark.parametrize(
    ("name", "save"),
    [
        ("v.pkl", _dump),
        ("v.pth", lambda path, value: torch.save(value, path)),
        ("v.npy", lambda path, value: np.save(path, np.array(value, dtype=object))),
    ],
)
def test_pickles_need_a_flag_and_are_not_run_without_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, save: Callable[[Path, Any], object]
) -> None:
    monkeypatch.chdir(tmp_path)
    source = tmp_path / name
    save(source, {"a": Bomb()})
    with pytest.raises(DataError, match=f"{name}: .*; add --unsafe-pickle if you trust"):
        bring(source)
    assert not (tmp_path / "exploded").exists()
    save(source, dict(zip(IDS, VALUES, strict=True)))
    bring(source, unsafe_pickle=True)
    assert result(tmp_path) == EXPECTED
    save(source, list(VALUES))
    bring(source, unsafe_pickle=True, row_order=True)
    assert result(tmp_path) == EXPECTED


def test_zero_rows_are_counted_and_become_unobserved_on_request(tmp_path: Path) -> None:
    values = VALUES.copy()
    values[1], values[3, 2] = 0, 0
    np.save(tmp_path / "v.npy", values)
    done = bring(tmp_path / "v.npy", row_order=True)
    assert (done.zero, done.observed) == (1, 5)
    done = bring(tmp_path / "v.npy", row_order=True, zero_is_missing=True)
    assert (done.zero, done.observed) == (1, 4)
    assert "b é" not in result(tmp_path)


def test_values_that_are_not_finite_are_an_error_or_unobserved(tmp_path: Path) -> None:
    values = VALUES.astype(np.float64)
    values[2, 1], values[4, 0] = np.nan, 1e300
    np.save(tmp_path / "v.npy", values)
    with pytest.raises(DataError, match=r"entity 'c' has nan in column 1.*2 rows with such"):
        bring(tmp_path / "v.npy", row_order=True)
    done = bring(tmp_path / "v.npy", row_order=True, nan_is_missing=True)
    assert (done.not_finite, done.observed) == (2, 3)


def test_float16_stays_float16(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VALUES.astype(np.float16))
    assert bring(tmp_path / "v.npy", row_order=True).dtype == "float16"
    torch.save(torch.from_numpy(VALUES).bfloat16(), tmp_path / "v.pt")
    assert bring(tmp_path / "v.pt", row_order=True).dtype == "float32"


def test_entities_come_in_the_graphs_order_and_others_at_the_end(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VALUES)
    (tmp_path / "ids").write_text("x\nc\ny\na\ne\n")
    done = bring(tmp_path / "v.npy", ids=tmp_path / "ids")
    assert (done.outside, done.outside_example, done.without_row) == (2, "x", 2)
    with FeatureStore(tmp_path / "out.h5") as store:
        assert store.ids == [*IDS, "x", "y"]
        assert store.observed.tolist() == [True, False, True, False, True, True, True]
        assert np.array_equal(store.read()[[5, 2, 6, 0, 4]], VALUES)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        (b"a\nb\nc\nd\na\n", "ids: the id 'a' is repeated, in rows 0 and 4"),
        (b"a\nb\nc\n", "ids: 3 ids, but .* has 5 rows"),
        (b"a\t0\nb\t5\n", "ids:2: '5' is not a row of .*, expected 0 to 4"),
        (b"a\t0\nb\tx\n", "ids:2: 'x' is not a row"),
        (b"a\t0\nb\n", "ids:2: 1 column, expected an id and a row number or key"),
        (b"a\t0\t1\n", "ids:1: 3 columns"),
        (b"a\n\xff\n", "ids:2: byte 0xff at position 1 is not UTF-8"),
        (b"", "ids: the file is empty"),
    ],
)
def test_a_wrong_map_of_ids_is_named_with_its_line(tmp_path: Path, text: bytes, words: str) -> None:
    np.save(tmp_path / "v.npy", VALUES)
    (tmp_path / "ids").write_bytes(text)
    with pytest.raises(DataError, match=words):
        bring(tmp_path / "v.npy", ids=tmp_path / "ids")
    assert not (tmp_path / "out.h5").exists()


def test_ids_that_are_numbers_are_not_a_count_line(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VALUES)
    ids = tmp_path / "ids"
    for text in ("7\n3\n0\n1\n2\n", "5\n7\n3\n0\n1\n2\n"):
        ids.write_text(text)
        bring(tmp_path / "v.npy", None, ids=ids)
        assert list(result(tmp_path)) == ["7", "3", "0", "1", "2"]
    ids.write_text("6\n7\n3\n0\n1\n2\n")
    with pytest.raises(DataError, match=r"ids:1: the count line says 6, but 5 ids follow"):
        bring(tmp_path / "v.npy", None, ids=ids)
    np.save(tmp_path / "one.npy", VALUES[:1])
    ids.write_text("7\n")
    bring(tmp_path / "one.npy", None, ids=ids)
    assert list(result(tmp_path)) == ["7"]


def test_an_order_of_another_length_is_refused(tmp_path: Path) -> None:
    np.save(tmp_path / "v.npy", VALUES)
    with pytest.raises(DataError, match="5 rows, but 'ring' has 2 entities: the rows"):
        bring(tmp_path / "v.npy", graph_of(["a", "b"]), row_order=True)
    with pytest.raises(UsageError, match="needs a graph; add --graph DIR"):
        bring(tmp_path / "v.npy", None, row_order=True)


@pytest.mark.parametrize("name", [*MATRICES, "keys.tsv", "v.pkl"])
def test_a_truncated_file_is_one_line(tmp_path: Path, name: str) -> None:
    source = tmp_path / name
    {**MATRICES, "keys.tsv": KEYED["v.tsv"], "v.pkl": lambda path: _dump(path, VALUES)}[name](
        source
    )
    data = source.read_bytes()
    for size in sorted({0, 1, 7, *range(20, len(data), max(1, len(data) // 9))}):
        source.write_bytes(data[:size])
        try:
            bring(source, None, ids=None, unsafe_pickle=True)
        except (DataError, UsageError) as error:
            assert str(error).startswith(str(source)), size
        except BaseException as error:
            raise AssertionError(size) from error


@pytest.mark.parametrize(
    ("name", "save", "words"),
    [
        ("v.npy", lambda p: np.save(p, np.zeros((2, 3, 4))), r"shape \(2, 3, 4\), expected \[n, d"),
        ("v.npy", lambda p: np.save(p, np.array([["x"]])), "contains <U1, expected numbers"),
        ("v.npz", lambda p: np.savez(p, a=VALUES, b=VALUES), "2 arrays of several rows: a, b"),
        ("v.npz", lambda p: np.savez(p, a=VALUES[0], b=VALUES[0, :2]), "'b' has shape"),
        ("v.pt", lambda p: torch.save({"a": "x", "b": "y"}, p), "contains str, expected numbers"),
        ("v.tsv", lambda p: p.write_text("a\t1\t2\nb\t1\tx\n"), "v.tsv:2: 'x' is not a number"),
        ("v.tsv", lambda p: p.write_text("a\t1\t2\nb\t1\n"), "v.tsv:2: 1 number, expected 2"),
        ("v.tsv", lambda p: p.write_text("a\nb\n"), "contains no numbers; write lines"),
        ("v.h5", lambda p: _hdf5(p, {"v": VALUES, "ids": [b"a", b"\xff", b"c", b"d", b"e"]}),
         "is not UTF-8"),
        ("v.docx", lambda p: p.write_text("x"), "no reader for '.docx'; known: .bin"),
    ],
)  # fmt: skip
def test_files_without_vectors_are_refused_with_their_contents(
    tmp_path: Path, name: str, save: Callable[[Path], object], words: str
) -> None:
    save(tmp_path / name)
    with pytest.raises((DataError, UsageError), match=words):
        bring(tmp_path / name, None)


@pytest.mark.parametrize("shape", [(641, 2**22), (2**32,)])
@pytest.mark.parametrize("is_keyed", [False, True])
def test_a_tensor_that_repeats_a_value_is_refused_before_it_is_expanded(
    tmp_path: Path, shape: tuple[int, ...], is_keyed: bool
) -> None:
    tensor = torch.zeros(1).expand(shape)
    torch.save({"a": tensor} if is_keyed else tensor, tmp_path / "v.pth")
    assert (tmp_path / "v.pth").stat().st_size < 5000
    with pytest.raises(DataError, match="v.pth: declares a tensor of .* more than 1.0 GiB"):
        bring(tmp_path / "v.pth", row_order=True)


@pytest.mark.skipif(os.name != "posix", reason="needs pipes")
@pytest.mark.parametrize("suffix", sorted(sources._READERS))
def test_a_pipe_or_a_device_is_refused_without_waiting(tmp_path: Path, suffix: str) -> None:
    source = tmp_path / f"v{suffix}"
    os.mkfifo(source)
    link = tmp_path / f"link{suffix}"
    link.symlink_to("/dev/zero")
    ids = tmp_path / "ids"
    ids.symlink_to(source)
    np.save(tmp_path / "w.npy", VALUES)
    for path, kind, id_map in (
        (source, "pipe", None), (link, "device", None), (tmp_path / "w.npy", "pipe", ids),
    ):  # fmt: skip
        with pytest.raises(DataError, match=f"is a {kind}, expected a file; copy its contents"):
            bring(path, unsafe_pickle=True, ids=id_map)


@settings(max_examples=30)
@given(
    suffix=st.sampled_from(["npy", "safetensors", "parquet"]),
    dtype=st.sampled_from(["float32", "float16"]),
    rows=st.lists(st.integers(0, 4), min_size=1, unique=True),
)
def test_an_export_can_be_imported_again(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, dtype: str, rows: list[int]
) -> None:
    folder = tmp_path_factory.mktemp("export")
    observed = np.arange(5) != 2
    store = FeatureStore(write(folder / "s.h5", IDS, VALUES, observed, dtype=dtype))
    files, without = export_features(store, np.array(rows), folder / f"x.{suffix}")
    assert without == (2 in rows)
    expected = {IDS[i]: VALUES[i].astype(dtype).tolist() for i in rows if i != 2}
    if suffix == "parquet":
        pq = pytest.importorskip("pyarrow.parquet")
        table = pq.read_table(files[0]).to_pydict()
        triples = zip(table["id"], table["observed"], table["vector"], strict=True)
        assert {
            name: list(map(float, v)) for name, is_observed, v in triples if is_observed
        } == expected
        assert table["id"] == [IDS[i] for i in rows]
    else:
        ids = files[1] if suffix == "npy" else None
        bring(files[0], None, ids=ids, zero_is_missing=suffix == "npy")
        assert result(folder) == expected
        with FeatureStore(folder / "out.h5") as back:
            assert back.dtype == dtype
    store.close()


def test_the_library_reads_a_safetensors_export(tmp_path: Path) -> None:
    store = FeatureStore(write(tmp_path / "s.h5", IDS, VALUES, np.arange(5) > 0))
    export_features(store, np.arange(5), tmp_path / "x.safetensors")
    tensors = safetensors.torch.load_file(tmp_path / "x.safetensors")
    assert torch.equal(tensors["vectors"][1:], torch.from_numpy(VALUES[1:]))
    assert tensors["observed"].tolist() == [False, True, True, True, True]
    with pytest.raises(UsageError, match="no writer for '.csv'; known: .npy, .safetensors"):
        export_features(store, np.arange(5), tmp_path / "x.csv")
    store.close()
