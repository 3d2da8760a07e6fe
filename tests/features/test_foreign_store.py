"""Stores from elsewhere: well-formed checksums around contents that are not those of a store."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmkgc_cli.errors import DataError
from mmkgc_cli.features.checksums import read_checksums, write_checksums
from mmkgc_cli.features.merging import merge_stores
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.store import FeatureStore
from mmkgc_cli.kg import inspected
from tests.features.small import vectors, write
from tests.kg.test_foreign_graph import (
    Edit,
    attribute,
    first_name,
    grouped,
    linked,
    repeated,
    replaced,
    virtual,
    without,
    without_attribute,
)
from tests.state.sessions import record_sessions

N, WIDTH = 900, 80  # two chunks of vectors
IDS = [f"e{i:03}" for i in range(N)]
TEXTS = ("entities_id", "modality", "encoder", "graph", "source", "train_id")
CHUNKS = {"chunks": (819, WIDTH)}


@pytest.fixture
def path(tmp_path: Path) -> Path:
    os.mkfifo(tmp_path / "pipe")
    return write(tmp_path / "s.h5", IDS, vectors(N, WIDTH), np.arange(N) % 3 > 0)


def rewritten(path: Path, change: Callable[[], object]) -> None:
    """Changes the HDF5 data of a store and computes its checksums again."""
    with path.open("rb", buffering=0) as file:
        size = read_checksums(path, file).size
    os.truncate(path, size)
    change()
    with path.open("r+b") as file:
        write_checksums(file)


def edited(path: Path, edit: Edit) -> None:
    def change() -> None:
        with h5py.File(path, "r+") as file:
            edit(file)

    rewritten(path, change)


def short_chunk(file: h5py.File) -> None:
    """A compressed chunk with fewer values than the chunk; HDF5 reads beyond its buffer."""
    replaced("vectors", data=vectors(N, WIDTH), compression="gzip", **CHUNKS)(file)
    import zlib

    file["vectors"].id.write_direct_chunk((0, 0), zlib.compress(bytes(100)))


def raw_chunk(file: h5py.File) -> None:
    """A chunk that says it skipped its filter."""
    replaced("vectors", data=vectors(N, WIDTH), compression="gzip", **CHUNKS)(file)
    file["vectors"].id.write_direct_chunk((0, 0), bytes(819 * WIDTH * 4), filter_mask=1)


def missing_chunk(file: h5py.File) -> None:
    replaced("vectors", shape=(N, WIDTH), dtype="f4", **CHUNKS)(file)
    file["vectors"][:10] = 1


MUTATIONS: dict[str, tuple[Edit, str]] = {
    **{f"{name} is missing": (without(name), name) for name in ("ids", "vectors", "observed")},
    **{
        f"{name} is a group": (grouped(name), f"contains '{name}', which no store has")
        for name in ("ids", "vectors", "observed")
    },
    "generated is a group": (lambda f: f.create_group("generated"), "contains 'generated'"),
    **{
        f"{name} is a soft link": (linked(name, h5py.SoftLink("/ids")), "is a soft link")
        for name in ("ids", "vectors", "observed")
    },
    **{
        f"{name} is a link to a pipe": (
            linked(name, h5py.ExternalLink("pipe", "/x")), "is a link to another file"
        )
        for name in ("ids", "vectors", "observed")
    },
    "virtual vectors": (virtual("vectors"), "virtual dataset"),
    "external vectors": (
        replaced("vectors", shape=(N, WIDTH), dtype="f4", external=[("/dev/zero", 0, 288_000)]),
        "values in other files",
    ),
    "a further array": (lambda f: f.__setitem__("x", 1), "contains 'x', which no store has"),
    **{
        f"vectors of type {dtype}": (
            replaced("vectors", data=np.ones((N, WIDTH), dtype), **CHUNKS), "vectors"
        )
        for dtype in ("f8", "i4", ">f4", "S4", "bool", "c8")
    },
    **{
        f"vectors of shape {shape}": (replaced("vectors", data=np.ones(shape, "f4")), "vectors")
        for shape in ((), (N,), (N, WIDTH, 1), (0, WIDTH), (N, 0), (1, WIDTH))
    },
    "vectors without chunks": (replaced("vectors", data=np.ones((N, WIDTH), "f4")), "vectors are"),
    "chunks by columns": (
        replaced("vectors", data=np.ones((N, WIDTH), "f4"), chunks=(N, 1)), "in chunks of"
    ),
    "a chunk for everything": (
        replaced("vectors", shape=(2**20, WIDTH), dtype="f4", chunks=(2**20, WIDTH)), "vectors"
    ),
    "zeros without end": (
        replaced("vectors", shape=(2**40, WIDTH), dtype="f4", **CHUNKS), "chunks, not one for"
    ),
    "a missing chunk": (missing_chunk, "vectors has 1 chunks, not one for each 819 rows"),
    "a short chunk": (short_chunk, "a chunk of vectors has 100 bytes, expected 262,080"),
    "a raw chunk": (raw_chunk, "a chunk of vectors is outside of the file or incomplete"),
    "a checksum filter": (
        replaced("vectors", data=np.ones((N, WIDTH), "f4"), fletcher32=True, **CHUNKS),
        "has the filters",
    ),
    "ids of numbers": (replaced("ids", data=np.arange(N), chunks=(N,)), "ids has the type int64"),
    "ids of any length": (
        replaced("ids", data=IDS, dtype=h5py.string_dtype(), chunks=(N,)), "ids has the type object"
    ),
    "few ids": (replaced("ids", data=np.array(IDS[:9], "S"), chunks=(9,)), "ids has shape"),
    "ids in a table": (
        replaced("ids", data=np.array(IDS, "S")[:, None], chunks=(N, 1)), "ids has shape"
    ),
    "wide ids": (
        replaced("ids", shape=(N,), dtype="S2000000000", chunks=(1,)), "ids has chunks of"
    ),
    "a repeated id": (repeated("ids"), "899 distinct ids for 900 rows"),
    "an empty id": (first_name("ids", b""), "is empty or contains a control character"),
    "a control character": (first_name("ids", b"\x1b[2J"), "control character"),
    "an id that is not UTF-8": (first_name("ids", b"\xff\xfe"), "utf-8"),
    "another id": (first_name("ids", b"zzz"), "ids do not match entities_id"),
    "a mask of numbers": (
        replaced("observed", data=np.ones(N, "i1"), chunks=(N,)), "observed has the type int8"
    ),
    "a short mask": (
        replaced("observed", data=np.ones(9, bool), chunks=(9,)), "observed has shape"
    ),
    "a short second mask": (
        lambda f: f.create_dataset("generated", data=np.ones(9, bool), chunks=(9,)),
        "generated has shape",
    ),
    **{f"no {name}": (without_attribute(name), name) for name in (*TEXTS, "notes", "mask")},
    **{f"{name} is a number": (attribute(name, 7), "expected a string") for name in TEXTS},
    "a modality that is a path": (attribute("modality", "../x"), "expected lower-case letters"),
    "a false identity": (attribute("entities_id", "0" * 64), "ids do not match entities_id"),
    "an encoder that is not UTF-8": (attribute("encoder", b"\xff"), "UTF-8|expected a string"),
    **{
        f"{name} is {value}": (attribute(name, value), "damaged|not valid JSON")
        for name in ("notes", "mask", "completion")
        for value in ("7", "[", "null", "[" * 20_000, "9" * 5000)
    },
    **{
        f"format version {value!r}": (attribute("format_version", value), "format.version")
        for value in (0, 2, 2**62, "1", 1.0, float("inf"), np.arange(2))
    },
}  # fmt: skip


@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_store_that_is_not_one_is_a_single_line(path: Path, mutation: str) -> None:
    edit, words = MUTATIONS[mutation]
    edited(path, edit)
    with pytest.raises(
        DataError, match=rf"s.h5: (?s:.*)({words})(?s:.*); (make the|rename)"
    ) as caught:
        FeatureStore(path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 500


@pytest.mark.parametrize("compression", [None, "gzip", "lzf"])
def test_the_same_contents_in_another_file_are_accepted(
    tmp_path: Path, compression: str | None
) -> None:
    values = vectors(N, WIDTH)
    path = write(tmp_path / "s.h5", IDS, values, compression=compression)
    edited(path, attribute("encoder", "another"))
    with FeatureStore(path) as store:
        assert (store.metadata.encoder, store.ids) == ("another", IDS)
        assert np.array_equal(store.read(), values)


def test_chunks_that_share_their_bytes_are_refused(path: Path) -> None:
    """Else a small file would hold any number of rows."""
    with h5py.File(path) as file:
        places: list[Any] = []
        file["vectors"].id.chunk_iter(places.append)
    # In the file, offsets are counted from the end of the user block.
    first, second = ((place.byte_offset - 512).to_bytes(8, "little") for place in places)
    data = path.read_bytes()
    assert data.count(second) == 1
    rewritten(path, lambda: path.write_bytes(path.read_bytes().replace(second, first)))
    with pytest.raises(DataError, match="chunks of vectors share their bytes"):
        FeatureStore(path)


def test_a_claimed_identity_does_not_avoid_the_inspection(path: Path, tmp_path: Path) -> None:
    """Only the CRC of blocks is verified on opening, so a file can claim to be an inspected one."""
    with FeatureStore(path) as store:
        claimed = store.checksums.sha256
    other = write(tmp_path / "other.h5", IDS, vectors(N, WIDTH, seed=1))
    edited(other, lambda file: file.__setitem__("x", 1))
    import zlib

    with other.open("r+b") as file:
        data = file.read()
        with other.open("rb", buffering=0) as raw:
            checksums = read_checksums(other, raw)
        table = data[checksums.size :]
        check = zlib.crc32(claimed.encode(), zlib.crc32(table))
        head = b"mmkgc features\nsize %d\ntable %08x\nsha256 %b\n"
        file.seek(0)
        file.write((head % (checksums.size, check, claimed.encode())).ljust(512, b"\0"))
    with pytest.raises(DataError, match="contains 'x', which no store has"):
        FeatureStore(other)


def test_inspections_are_recorded_by_file(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    edited(path, attribute("encoder", "another"))
    sessions = record_sessions(monkeypatch)
    for _ in range(3):
        inspected._known.clear()  # as a new process
        FeatureStore(path).close()
    assert len(sessions) == 1
    time.sleep(0.05)  # the clock of file systems is coarse
    edited(path, attribute("encoder", "a third"))
    FeatureStore(path).close()
    assert len(sessions) == 2


def test_stores_of_this_machine_are_not_inspected(
    path: Path, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    inspected._known.clear()
    monkeypatch.setattr("mmkgc_cli.features.structure.Session", None)
    with FeatureStore(path) as store:
        assert store.ids == IDS


def test_a_merge_passes_the_same_gate(path: Path, tmp_path: Path) -> None:
    other = write(tmp_path / "other.h5", ["x"], vectors(1, WIDTH), metadata=Metadata("image"))
    edited(other, MUTATIONS["vectors is a link to a pipe"][0])
    with pytest.raises(DataError, match=r"other.h5: 'vectors' is a link to another file"):
        merge_stores([FeatureStore(path), FeatureStore(other)], tmp_path / "m.h5", None, None)


@pytest.mark.parametrize("kind", ["pipe", "device"])
def test_a_store_that_is_no_file_is_refused_without_waiting(path: Path, kind: str) -> None:
    link = path.with_name("link.h5")
    link.symlink_to("/dev/zero" if kind == "device" else path.with_name("pipe"))
    with pytest.raises(DataError, match=f"link.h5: is a {kind}, expected a file"):
        FeatureStore(link)
