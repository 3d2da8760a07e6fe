from __future__ import annotations

import io
import subprocess
import sys
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.features import npz_vectors
from mmkgc_cli.features.sources import open_vectors
from mmkgc_cli.features.vectors import Opening
from tests.conftest import ROOT
from tests.features.small import vectors

VALUES = vectors(5, 4)


@pytest.mark.parametrize("save", [np.savez, np.savez_compressed])
@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("dtype", ["f2", ">f8", "i4"])
def test_arrays_in_a_temporary_file_equal_those_in_memory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, save: Any, order: Any, dtype: str
) -> None:
    values = np.array(9 * VALUES, dtype=dtype, order=order)
    save(tmp_path / "table.npz", other=np.arange(3), table=values)
    save(tmp_path / "keys.npz", **{f"k{i}": row for i, row in enumerate(values)})
    rows = np.array([4, 0, 0, 2])
    for name in ("table", "keys"):
        with open_vectors(tmp_path / f"{name}.npz") as source:
            expected = source.read(rows)
        assert np.array_equal(expected, values[rows].astype(np.float32))
        with monkeypatch.context() as patch:
            patch.setattr(npz_vectors, "_IN_MEMORY", 0)
            with open_vectors(tmp_path / f"{name}.npz", Opening(scratch=tmp_path)) as source:
                assert np.array_equal(source.read(rows), expected)
        assert {path.name for path in tmp_path.iterdir()} == {"table.npz", "keys.npz"}


def member(header: bytes, data: bytes = b"") -> bytes:
    return b"\x93NUMPY\x01\x00" + len(header).to_bytes(2, "little") + header + data


def archive(path: Path, **members: bytes) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file:
        for name, data in members.items():
            file.writestr(f"{name}.npy", data)
    return path


def header(shape: str, descr: str = "<f4") -> bytes:
    return f"{{'descr': '{descr}', 'fortran_order': False, 'shape': {shape}, }}\n".encode()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (member(header("(641, 4194304)")), "1 array, 10.0 GiB, which is more than 1.0 GiB"),
        (member(header("(3, 4)"), bytes(47)), "truncated|EOF"),
        (member(header("(3, 4)"), bytes(49)), "longer than its header says"),
        (member(header("(-3, 4)"), bytes(48)), "shape|negative"),
        (member(header("(3, 4)", "|O"), bytes(48)), "pickled objects; add --unsafe-pickle"),
        (member(header("(3, 4)", "<U3"), bytes(144)), "contains <U3, expected numbers"),
        (member(b"{'descr': 1}\n"), "'v.npy' is no array"),
        (member(b"(" * 5000 + b"\n"), "is no array|cannot be read"),
        (member(header("(10" + "0" * 4500 + ", 4)")), "v.npz: "),
        (b"\x93NUMPY\x09\x00", "'v.npy' is no array"),
        (b"", "'v.npy' is no array"),
        (b"text", "'v.npy' is no array"),
    ],
)
@pytest.mark.parametrize("limit", [0, 1 << 26], ids=["file", "memory"])
def test_a_wrong_member_is_one_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, data: bytes, words: str, limit: int
) -> None:
    monkeypatch.setattr(npz_vectors, "_IN_MEMORY", limit)
    path = archive(tmp_path / "v.npz", v=data)
    with pytest.raises((DataError, UsageError), match=words) as caught:
        open_vectors(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "\n" not in str(caught.value)


def test_only_the_selected_array_is_decompressed_and_counted(tmp_path: Path) -> None:
    path = archive(
        tmp_path / "v.npz",
        big=member(header("(641, 4194304)")),
        small=member(header("(5, 4)"), VALUES.tobytes()),
    )
    with open_vectors(path, Opening(key="small")) as source:
        assert np.array_equal(source.read(np.arange(5)), VALUES)
    with pytest.raises(DataError, match="more than 1.0 GiB"):
        open_vectors(path, Opening(key="big"))
    with pytest.raises(UsageError, match="has 2 arrays of several rows: big, small"):
        open_vectors(path)
    with pytest.raises(UsageError, match="has no array 'x'"):
        open_vectors(path, Opening(key="x"))


def test_memory_does_not_grow_with_a_compressed_array(tmp_path: Path) -> None:
    """120 MB of zeros in 0.1 MB."""
    rows, width = 240, 125_000
    stream = io.BytesIO()
    np.lib.format.write_array(stream, np.zeros((0, width), np.float32))
    start = stream.getvalue().replace(b"(0, 125000), }  ", f"({rows}, 125000), }}".encode())
    path = tmp_path / "v.npz"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as file, file.open("v.npy", "w") as npy:
        npy.write(start)
        for _ in range(rows):
            npy.write(bytes(4 * width))
    code = (
        "import resource, sys; from pathlib import Path\n"
        "from mmkgc_cli.features.importing import ImportRequest, import_features\n"
        "from mmkgc_cli.features.metadata import Metadata\n"
        "source = Path(sys.argv[1]); ids = source.with_name('ids')\n"
        f"ids.write_text(''.join(f'{{i}}\\n' for i in range({rows})))\n"
        "request = ImportRequest(source, Metadata('image'), ids=ids)\n"
        "before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss\n"
        "import_features(request, source.with_name('out.h5'), None)\n"
        "print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, tmp_path / "v.npz"], capture_output=True, text=True,
        check=True, cwd=ROOT,
    )  # fmt: skip
    assert int(done.stdout) < 80 << 10  # KiB, of 117 << 10
    assert (tmp_path / "out.h5").stat().st_size > rows * width * 4
