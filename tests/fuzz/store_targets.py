"""Fuzz targets of vectors and stores: HDF5 from decisions; other formats and weights from bytes."""

from __future__ import annotations

import atexit
import functools
import io
import json
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.torch
import torch

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.features.exporting import export_features
from mmkgc_cli.features.importing import ImportRequest, import_features
from mmkgc_cli.features.masks import MaskRequest, missing_mask
from mmkgc_cli.features.merging import merge_stores, write_masked
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg.storage import load_graph
from mmkgc_cli.state.checkpoints import Checkpoints, pack
from mmkgc_cli.state.metadata import read_metadata, read_state
from mmkgc_cli.state.weights import load_weights, save_weights
from tests.fuzz import hdf5_files
from tests.fuzz.choices import Choices
from tests.fuzz.hdf5_files import IDS, SECRET, Traps, graph

MOST_BYTES = 1 << 26


@functools.cache
def traps() -> Traps:
    """Files of this process that no input may read or write."""
    folder = Path(tempfile.mkdtemp(prefix="mmkgc-traps-"))
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return Traps.plant(folder)


def _check_store(path: Path) -> tuple[int, int, int]:
    """Everything in a store that was opened is consistent and comes from its own file.

    Returns its rows, its width, and its number of observed rows.
    """
    with FeatureStore(path) as store:
        assert len(store.ids) == len(set(store.ids)) == store.n
        for mask in (store.observed, store.present):
            assert mask.dtype == np.bool_
            assert mask.shape == (store.n,)
        assert store.n * store.width * 4 <= MOST_BYTES, "declares more than the limit"
        values = store.read()
        assert values.shape == (store.n, store.width)
        assert not (values == SECRET).any(), "values of another file were read"
        store.verify()
        return store.n, store.width, int(store.observed.sum())


def _import(path: Path, options: int) -> None:
    out = path.parent / "out.h5"
    request = ImportRequest(
        path,
        Metadata("image"),
        row_order=options % 2 == 0 and options % 3 > 0,
        nan_is_missing=options % 4 > 1,
        key="vectors" if options % 8 == 7 else None,
        max_bytes=MOST_BYTES,
    )
    try:
        result = import_features(request, out, graph() if options % 3 else None)
    except MmkgcError:
        assert not out.exists(), "a store was left after an error"
        raise
    assert _check_store(out) == (result.rows, result.width, result.observed)


def hdf5_import(data: bytes, folder: Path) -> None:
    """A foreign HDF5 file is imported."""
    choices = Choices(data)
    options = choices.integer(16)
    path = folder / "x.h5"
    path.write_bytes(hdf5_files.vectors(choices, traps()))
    try:
        _import(path, options)
    finally:
        traps().check()


def store(data: bytes, folder: Path) -> None:
    """A store with valid checksums and wrong contents is opened, read and verified."""
    path = folder / "store.h5"
    path.write_bytes(hdf5_files.store(Choices(data), traps()))
    try:
        _check_store(path)
    finally:
        traps().check()


def store_use(data: bytes, folder: Path) -> None:
    """Such a store is merged, masked and exported."""
    path, other, out = folder / "store.h5", folder / "other.h5", folder / "out.h5"
    path.write_bytes(hdf5_files.store(Choices(data), traps()))
    other.write_bytes(hdf5_files.store(Choices(b"\0" * 3), traps()))
    try:
        with FeatureStore(path) as first, FeatureStore(other) as second:
            kind = data[0] % 3 if data else 0
            if kind == 0:
                merge_stores([first, second], out, "first", None)
                _check_store(out)
            elif kind == 1:
                request = MaskRequest("image", 0.5)
                missing = missing_mask(request, first.ids, first.observed)
                rows = np.arange(first.n)
                write_masked(first, rows, missing, out, record={"rate": 0.5}, train_id="")
                _check_store(out)
            else:
                export_features(first, np.arange(first.n), folder / "out.safetensors")
    finally:
        traps().check()


def graph_h5(data: bytes, folder: Path) -> None:
    """A prepared graph with a valid checksum and wrong contents is opened."""
    (folder / "graph.h5").write_bytes(hdf5_files.graph_file(Choices(data), traps()))
    try:
        loaded = load_graph(folder)
        n = len(loaded.entities)
        assert len(set(loaded.entities)) == n
        assert len(set(loaded.relations)) == len(loaded.relations)
        for rows in loaded.splits.values():
            assert rows.dtype == np.int32
            assert rows.shape == (len(rows), 3)
            assert not len(rows) or (rows.min() >= 0 and rows[:, [0, 2]].max() < n)
        for row in loaded.train[:5]:
            loaded.decode(row)
        for labels in (loaded.entity_labels,):
            assert labels is None or len(labels) == n
        for identity in (loaded.fingerprint, loaded.entities_id, loaded.train_id, loaded.order_id):
            assert len(identity) == 64
    finally:
        traps().check()


def _vectors(name: str, data: bytes, folder: Path) -> None:
    """The first byte selects options of the import."""
    path = folder / name
    path.write_bytes(data[1:])
    _import(path, data[0] if data else 0)


def npy(data: bytes, folder: Path) -> None:
    _vectors("x.npy", data, folder)


def npz(data: bytes, folder: Path) -> None:
    _vectors("x.npz", data, folder)


def safetensors_file(data: bytes, folder: Path) -> None:
    _vectors("x.safetensors", data, folder)


def torch_file(data: bytes, folder: Path) -> None:
    _vectors("x.pt", data, folder)


def vectors_tsv(data: bytes, folder: Path) -> None:
    _vectors("x.tsv", data, folder)


def id_map(data: bytes, folder: Path) -> None:
    """The first byte selects a source with or without keys; the rest maps ids to its rows."""
    source = folder / "x.npz"
    source.write_bytes(_npz_bytes(bool(data and data[0] % 2)))
    path = folder / "ids.txt"
    path.write_bytes(data[1:])
    import_features(ImportRequest(source, Metadata("image"), ids=path), folder / "out.h5", graph())
    _check_store(folder / "out.h5")


def weights(data: bytes, folder: Path) -> None:
    """``model.safetensors`` of a run."""
    path = folder / "model.safetensors"
    path.write_bytes(data)
    tensors, metadata = load_weights(path)
    assert all(isinstance(tensor, torch.Tensor) for tensor in tensors.values())
    assert isinstance(metadata, dict)
    read_metadata(path)


def checkpoint(data: bytes, folder: Path) -> None:
    """A checkpoint from bytes; or, after a first byte 1, a state with a valid checksum."""
    path = folder / "000000000007.safetensors"
    if data[:1] == b"\1":
        tensors = {
            "state.json": torch.frombuffer(bytearray(data[1:] or b" "), dtype=torch.uint8),
            "state/weight": torch.ones(2),
        }
        save_weights(path, tensors, {"schema": "1"})
    else:
        path.write_bytes(data)
    found = Checkpoints(folder, 2).latest()
    assert found is not None
    assert found[0] == path
    read_state(path)


# Valid files that are changed


def hdf5_decisions() -> list[bytes]:
    """Decisions that change nothing, and some that do."""
    return [b"\2", bytes(range(64)), bytes(range(255, 150, -1))]


def _values() -> np.ndarray[Any, Any]:
    return np.arange(1, 21, dtype=np.float32).reshape(5, 4)


def npy_examples() -> list[bytes]:
    result = []
    for array in (_values(), np.asfortranarray(_values().astype(">f8")), _values()[:, None]):
        file = io.BytesIO()
        np.save(file, array)
        result.append(b"\2" + file.getvalue())
    return result


@functools.cache
def _npz_bytes(with_keys: bool, compressed: bool = False) -> bytes:
    file = io.BytesIO()
    arrays = {f"K{i}": row for i, row in enumerate(_values())} if with_keys else {"x": _values()}
    (np.savez_compressed if compressed else np.savez)(file, **arrays)
    return file.getvalue()


def npz_examples() -> list[bytes]:
    return [
        b"\2" + _npz_bytes(False), b"\2" + _npz_bytes(False, True), b"\3" + _npz_bytes(True),
        b"\3" + _npz_bytes(True, True),
    ]  # fmt: skip


def safetensors_examples() -> list[bytes]:
    values = torch.from_numpy(_values())
    exported = {"vectors": values, "observed": torch.ones(5, dtype=torch.bool)}
    return [
        b"\2" + safetensors.torch.save({"x": values}),
        b"\3" + safetensors.torch.save(exported, {"ids": json.dumps(IDS)}),
        b"\3" + safetensors.torch.save({f"K{i}": row.half() for i, row in enumerate(values)}),
    ]


def torch_examples() -> list[bytes]:
    result = []
    for value in (torch.from_numpy(_values()), {"a": torch.ones(3), "b": torch.ones(3)}):
        for new in (True, False):
            file = io.BytesIO()
            torch.save(value, file, _use_new_zipfile_serialization=new)
            result.append(b"\2" + file.getvalue())
    return result


def _saved(tensors: dict[str, torch.Tensor], metadata: dict[str, str]) -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "x.safetensors"
        save_weights(path, tensors, metadata)
        return path.read_bytes()


def weights_examples() -> list[bytes]:
    metadata = {"scorer": "rotate", "epoch": "3", "order_id": "0" * 64}
    return [
        _saved({"entities.weight": torch.ones(5, 4), "n": torch.tensor(3)}, metadata),
        _saved({"x": torch.zeros(0, 3, dtype=torch.bfloat16)}, metadata),
    ]


def checkpoint_examples() -> list[bytes]:
    state = {
        "progress": {"epoch": 3, "done": 1, "stopped": None},
        "weight": torch.ones(2),
        "rng": (1, [2.5, "x"]),
    }
    packed = pack(state)
    return [_saved(packed, {"schema": "1"}), b"\1" + bytes(packed["state.json"].numpy())]
