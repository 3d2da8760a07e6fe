from __future__ import annotations

import hashlib
import multiprocessing
import os
import pickle
import subprocess
import sys
import time
from pathlib import Path

import h5py
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.alignment import RowCache, align
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.features.writing import FeatureBlock, write_store
from tests.conftest import ROOT
from tests.features.small import graph_of, vectors, write

NAMES = st.text(st.characters(blacklist_categories=["Cs", "Cc"]), min_size=1, max_size=12)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@settings(max_examples=40)
@given(
    ids=st.lists(NAMES, min_size=1, max_size=30, unique=True),
    width=st.integers(1, 5),
    block=st.integers(1, 31),
    dtype=st.sampled_from(["float32", "float16"]),
    compression=st.sampled_from([None, "gzip", "lzf"]),
    seed=st.integers(0, 99),
)
def test_a_store_comes_back_as_it_was_written(
    folder: Path, ids: list[str], width: int, block: int, dtype: str, compression: str | None,
    seed: int,
) -> None:  # fmt: skip
    rng = np.random.default_rng(seed)
    observed, generated = rng.random(len(ids)) < 0.6, rng.random(len(ids)) < 0.3
    values = vectors(len(ids), width, seed)
    metadata = Metadata("text", "bert", "1", "lower", "cls", "g", "f", "", {"a": 1}, {}, ("x", "y"))
    path = write(
        folder / "s.h5", ids, values, observed, generated, metadata=metadata, block_size=block,
        dtype=dtype, compression=compression,
    )  # fmt: skip
    with FeatureStore(path) as store:
        store.verify()
        assert store.ids == ids
        assert store.metadata == metadata
        assert np.array_equal(store.observed, observed)
        assert store.generated is not None
        assert np.array_equal(store.generated, generated)
        expected = np.where((observed | generated)[:, None], values.astype(dtype), 0)
        assert np.array_equal(store.read(), expected.astype(np.float32))
        assert (store.dtype.name, store.compression) == (dtype, compression)


@settings(max_examples=40)
@given(data=st.data(), n=st.integers(1, 60), seed=st.integers(0, 99))
def test_a_store_serves_any_order_of_its_entities_by_id(
    folder: Path, data: st.DataObject, n: int, seed: int
) -> None:
    ids = [f"e{i}" for i in range(n)]
    values, observed = vectors(n, 3, seed), np.arange(n) % 4 > 0
    path = write(folder / "p.h5", ids, values, observed)
    rows_read = data.draw(st.lists(st.sampled_from(range(n)), min_size=1, unique=True))
    with FeatureStore(path) as store:
        features = align(store, graph_of([ids[i] for i in rows_read]))
        assert np.array_equal(features.observed, observed[rows_read])
        expected = np.where(observed[:, None], values, 0)[rows_read]
        assert np.array_equal(features.read(), expected)
        assert torch.equal(features.to(torch.device("cpu")), torch.from_numpy(expected))
        assert features.in_file_order == (rows_read == list(range(len(rows_read))))


@pytest.mark.parametrize("width", [1, 300, 70_000])
@pytest.mark.parametrize("compression", [None, "lzf"])
def test_rows_are_read_in_any_order_across_chunks(
    tmp_path: Path, width: int, compression: str | None
) -> None:
    n = 900 if width < 1000 else 11
    values = vectors(n, width)
    path = write(tmp_path / "s.h5", [str(i) for i in range(n)], values, compression=compression)
    rng = np.random.default_rng(1)
    with FeatureStore(path) as store:
        for rows in (
            rng.permutation(n), rng.integers(n, size=2 * n), np.arange(3, n - 2), np.array([n - 1]),
            np.arange(n)[::-1], np.array([], dtype=np.int64), np.arange(0, n, 2),
        ):  # fmt: skip
            assert np.array_equal(store.read(rows), values[rows])


def test_a_cache_gives_the_same_rows_and_keeps_to_its_size(tmp_path: Path) -> None:
    values = vectors(5000, 200)
    ids = [str(i) for i in range(5000)]
    path = write(tmp_path / "s.h5", ids, values, block_size=999)
    entities = ids[::-1]
    with FeatureStore(path) as store:
        chunk = store.chunk_rows * 200 * 4
        cache = RowCache(align(store, graph_of(entities)), max_bytes=3 * chunk)
        rng = np.random.default_rng(0)
        for _ in range(20):
            sample = torch.from_numpy(rng.integers(5000, size=(4, 5)))
            assert torch.equal(cache.take(sample), torch.from_numpy(values[::-1].copy())[sample])
            assert cache.nbytes <= 3 * chunk
        before = cache.misses
        cache.take(sample[-1, -1:])
        cache.take(sample[-1, -1:])
        assert cache.misses <= before + 1


def test_a_store_of_another_graph_is_refused_with_both_names(tmp_path: Path) -> None:
    metadata = Metadata("image", graph="fb15k-237")
    path = write(tmp_path / "s.h5", ["a", "b"], vectors(2, 3), metadata=metadata)
    with FeatureStore(path) as store, pytest.raises(
        DataError, match=r"s.h5 \(made for 'fb15k-237'\): does not fit the graph 'ring': 2 of its "
        "3 entities, the first 'c', are not among the 2 ids",
    ):  # fmt: skip
        align(store, graph_of(["a", "c", "d"]))


def test_a_truncated_file_is_one_line(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", ["a", "b"], vectors(2, 3))
    data = path.read_bytes()
    for size in range(0, len(data), 61):
        path.write_bytes(data[:size])
        with pytest.raises(
            DataError, match=r"s.h5: (not a feature store.*or truncated|truncated: )"
        ):
            FeatureStore(path)
    path.write_bytes(data + b"\0")
    with pytest.raises(DataError, match="too long"):
        FeatureStore(path)


@pytest.mark.parametrize("compression", [None, "gzip"])
def test_a_flipped_bit_is_found_before_hdf5_reads_it(
    tmp_path: Path, compression: str | None
) -> None:
    path = write(tmp_path / "s.h5", ["a", "b"], vectors(2, 3), compression=compression)
    data = path.read_bytes()
    for offset in range(0, len(data), 37):
        path.write_bytes(data[:offset] + bytes([data[offset] ^ 4]) + data[offset + 1 :])
        with pytest.raises(DataError, match=r"s.h5: (damaged|not a |truncated|too long)"):
            FeatureStore(path).read()


def test_damage_is_found_by_a_read_of_its_block_and_by_verify(tmp_path: Path) -> None:
    values = vectors(2000, 300)
    path = write(tmp_path / "s.h5", [str(i) for i in range(2000)], values)
    data = bytearray(path.read_bytes())
    offset = data.index(values[1500].tobytes())
    data[offset] ^= 1
    path.write_bytes(data)
    with FeatureStore(path) as store:
        assert np.array_equal(store.read(np.arange(500)), values[:500])
        for fails in (store.read, store.verify):
            with pytest.raises(DataError, match=r"s.h5: damaged, or changed since it was written"):
                fails()


def test_a_store_replaced_while_open_is_not_mixed_with_the_old_one(tmp_path: Path) -> None:
    path = write(tmp_path / "s.h5", ["a"], vectors(1, 3))
    store = FeatureStore(path)
    store.close()
    write(path, ["b"], vectors(1, 3, seed=1))
    with pytest.raises(DataError, match="has been replaced since it was opened"):
        store.read()


def _first_row(store: FeatureStore) -> list[float]:
    return list(store.read(np.array([0]))[0].tolist())


def test_a_store_is_used_by_other_processes(tmp_path: Path) -> None:
    values = vectors(3, 4)
    store = FeatureStore(write(tmp_path / "s.h5", ["a", "b", "c"], values))
    store.read()
    copy = pickle.loads(pickle.dumps(store))
    assert np.array_equal(copy.read(), values)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        assert pool.map(_first_row, [store]) == [values[0].tolist()]
    copy.close()
    store.close()


def test_the_file_is_plain_hdf5_with_the_datasets_of_the_contract(tmp_path: Path) -> None:
    values = vectors(9, 4)
    path = write(tmp_path / "s.h5", [f"é{i}" for i in range(9)], values)
    with h5py.File(path) as file:
        assert list(file["ids"].asstr()[:]) == [f"é{i}" for i in range(9)]
        assert np.array_equal(file["vectors"][:], values)
        assert file["vectors"].chunks[1] == 4
        assert file["observed"].dtype == bool
        for name in ("entities_id", "modality", "encoder", "revision", "preprocess", "pooling"):
            assert name in file.attrs
        assert file.attrs["format_version"] == 1


def test_the_same_rows_in_any_blocks_give_the_same_file(tmp_path: Path) -> None:
    contents = set()
    for block in (1, 7, 1000):
        path = write(tmp_path / f"{block}.h5", [str(i) for i in range(50)], vectors(50, 3),
                     block_size=block)  # fmt: skip
        contents.add(hashlib.sha256(path.read_bytes()).hexdigest())
        time.sleep(0.4)  # which no time in the file may show
    assert len(contents) == 1


@pytest.mark.parametrize(
    ("ids", "values", "words"),
    [
        (["a", "a"], [[1.0], [2.0]], "the id 'a' is repeated, in rows 0 and 1"),
        (["a", "b"], [[1.0], [np.nan]], "entity 'b' has nan in column 0"),
        (["a", "b"], [[np.inf], [1]], "entity 'a' has inf in column 0"),
        (["a", "b"], [[1.0, 2.0], [1.0, 2.0]], r"shape \(2, 2\), expected 2 of width 1"),
        (["a", ""], [[1.0], [2.0]], "the id '' is empty or contains a control character"),
        (["a", "b\x00"], [[1.0], [2.0]], "contains a control character"),
        (["a", "\udc80"], [[1.0], [2.0]], "is not UTF-8"),
    ],
)
def test_rows_that_cannot_be_stored_leave_the_old_file(
    tmp_path: Path, ids: list[str], values: list[list[float]], words: str
) -> None:
    path = write(tmp_path / "s.h5", ["old"], vectors(1, 1))
    before = path.read_bytes()
    with pytest.raises(DataError, match=words):
        rows = FeatureBlock(ids, np.array(values, dtype=np.float32), np.ones(2, dtype=bool))
        write_store(path, Metadata("image"), [rows], n=2, width=1)
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]


def test_values_outside_float16_are_refused(tmp_path: Path) -> None:
    big = np.full((1, 2), 1e5, dtype=np.float32)
    with pytest.raises(DataError, match=r"'a' has 100000.0 .* finite float16 .* as float32"):
        write(tmp_path / "s.h5", ["a"], big, dtype="float16")
    with pytest.raises(DataError, match="nothing to store"):
        write_store(tmp_path / "s.h5", Metadata("image"), [], n=0, width=3)
    with pytest.raises(UsageError, match="modality '../x': expected lower-case letters"):
        Metadata("../x")


@pytest.mark.skipif(os.name != "posix", reason="needs limits on file sizes")
@pytest.mark.parametrize("limit", [0, 600, 5000, 400_000])
def test_a_full_disk_is_one_line_and_leaves_the_old_store(tmp_path: Path, limit: int) -> None:
    path = write(tmp_path / "s.h5", ["old"], vectors(1, 1))
    before = path.read_bytes()
    code = (
        "import resource, signal, sys; from pathlib import Path\n"
        "from tests.features.small import write, vectors\n"
        "from mmkgc_cli.errors import DataError\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        f"resource.setrlimit(resource.RLIMIT_FSIZE, ({limit}, {limit}))\n"
        "ids = list(map(str, range(999)))\n"
        "try: write(Path(sys.argv[1]), ids, vectors(999, 200), block_size=99)\n"
        "except DataError as error: print(error)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, path], capture_output=True, text=True, check=False, cwd=ROOT
    )
    assert done.returncode == 0, done.stderr  # HDF5 does not crash on its way out
    assert "s.h5: cannot be written: the file is larger than" in done.stdout
    assert path.read_bytes() == before
    assert list(tmp_path.iterdir()) == [path]
