from __future__ import annotations

import os
import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import h5py
import numpy as np
import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features.importing import ImportRequest, import_features
from mmkgc_cli.features.metadata import Metadata
from mmkgc_cli.features.sources import open_vectors
from mmkgc_cli.features.store import FeatureStore
from tests.features.small import graph_of, vectors

IDS = ["a", "b", "c"]
VALUES = vectors(3, 4)
GRAPH = graph_of(IDS)


def bring(source: Path, **options: Any) -> FeatureStore:
    request = ImportRequest(source, Metadata("image"), row_order=True, **options)
    return FeatureStore(import_features(request, source.parent / "out.h5", GRAPH).path)


def links(file: h5py.File, secret: Path) -> dict[str, Callable[[], object]]:
    """Ways to refer to values outside of the array, by what the message must say."""
    plain = file.create_dataset("plain", data=VALUES)
    layout = h5py.VirtualLayout((3, 4), "f4")
    layout[:] = h5py.VirtualSource(str(secret), "v", (3, 4))

    def link(target: Any) -> Callable[[], object]:
        return lambda: file.__setitem__("v", target)

    return {
        "'v' is a soft link": link(h5py.SoftLink("/plain")),
        "'v' is a link to another file": link(h5py.ExternalLink(str(secret), "/v")),
        "'v' has its values in other files": lambda: file.create_dataset(
            "v", (3, 4), "f4", external=[(str(secret), 0, plain.nbytes)]
        ),
        "'v' is a virtual dataset": lambda: file.create_virtual_dataset("v", layout),
    }


WAYS = (
    "'v' is a soft link",
    "'v' is a link to another file",
    "'v' has its values in other files",
    "'v' is a virtual dataset",
)


@pytest.mark.parametrize("target", ["file", "fifo", "/dev/zero", "missing"])
@pytest.mark.parametrize("way", WAYS)
def test_references_out_of_a_file_are_refused_before_a_value_is_read(
    tmp_path: Path, way: str, target: str
) -> None:
    secret = tmp_path / target
    if target == "file":
        with h5py.File(secret, "w") as file:
            file["v"] = VALUES
    elif target == "fifo":
        os.mkfifo(secret)  # to open it would wait for ever
    with h5py.File(tmp_path / "v.h5", "w") as file:
        links(file, secret)[way]()
    for key in (None, "v", "plain"):
        with pytest.raises(DataError, match=f"v.h5: {way}.*; .*(without links|h5repack)"):
            bring(tmp_path / "v.h5", key=key)


def test_an_unknown_filter_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", data=VALUES, compression="lzf")
    data = path.read_bytes()
    lzf = struct.pack("<H", h5py.h5z.FILTER_LZF)
    assert data.count(lzf) >= 1
    path.write_bytes(data.replace(lzf, struct.pack("<H", 32_123)))
    with pytest.raises(DataError, match="'v' is compressed with filter 32123 .*unknown"):
        bring(path)


def test_a_small_file_that_declares_many_zeros_is_refused_before_anything_is_written(
    tmp_path: Path,
) -> None:
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as file:
        file.create_dataset("v", (641, 2**22), "f4", chunks=(1, 2**22))
    assert path.stat().st_size < 5000
    with pytest.raises(DataError, match=r"641 vectors of width 4,194,304, 10.0 GiB, which is more "
                       r"than 1.0 GiB; .*add --max-bytes 10754195456"):  # fmt: skip
        open_vectors(path)
    with h5py.File(path, "w") as file:
        file["v"] = VALUES
        file.create_dataset("ids", (3,), "S2000000000", chunks=(1,))
    with pytest.raises(DataError, match=r"3 ids, 5.6 GiB, which is more than 1.0 GiB"):
        open_vectors(path)


def test_the_limit_on_bytes_can_be_set(tmp_path: Path) -> None:
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as file:
        file["v"] = VALUES
    with pytest.raises(DataError, match="48 B, which is more than 47 B; .*--max-bytes 48"):
        bring(path, max_bytes=47)
    with bring(path, max_bytes=48) as store:
        assert np.array_equal(store.read(), VALUES)
    # Entities without a row need room, too.
    np.save(tmp_path / "v.npy", VALUES)
    (tmp_path / "ids").write_text("a\nb\nc\n")
    request = ImportRequest(
        tmp_path / "v.npy", Metadata("image"), ids=tmp_path / "ids", max_bytes=48
    )
    with pytest.raises(DataError, match="declares 9 rows of width 4, 144 B"):
        import_features(request, tmp_path / "out.h5", graph_of([*IDS, *"defghi"]))


def test_a_file_that_crashes_the_library_is_one_line(tmp_path: Path) -> None:
    """A symbol table with a broken heap; the library reads outside of its buffers or refuses it."""
    path = tmp_path / "v.h5"
    with h5py.File(path, "w") as file:
        file["v"] = VALUES
    whole = path.read_bytes()
    rng = np.random.default_rng(0)
    for _ in range(60):
        data = bytearray(whole)
        for offset in rng.integers(len(data), size=8).tolist():
            data[offset] = int(rng.integers(256))
        path.write_bytes(data)
        try:
            with open_vectors(path) as source:
                source.read(np.arange(min(source.n, 3)))
        except (DataError, UsageError) as error:
            assert str(error).startswith(f"{path}: ")
            assert "\n" not in str(error)
            assert "open files" not in str(error)
