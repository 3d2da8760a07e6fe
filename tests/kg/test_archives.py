from __future__ import annotations

import bz2
import gzip
import io
import lzma
import shutil
import tarfile
import tempfile
import zipfile
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.archives import unpacked

FILES = {"train.txt": b"a\tr\tb\n", "valid.txt": b"b\tr\ta\n", "test.txt": b"a\tr\ta\n"}
SUFFIXES = ["tar", "tar.gz", "tgz", "tar.bz2", "tar.xz", "zip"]


def pack(path: Path, files: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
            for name, content in files.items():
                archive.writestr(name, content)
        return path
    mode = {"gz": "w:gz", "tgz": "w:gz", "bz2": "w:bz2", "xz": "w:xz"}.get(path.suffix[1:], "w")
    with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
        for name, content in files.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return path


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


@pytest.mark.parametrize("suffix", SUFFIXES)
@pytest.mark.parametrize("prefix", ["", "./", "data/graph/"])
def test_an_archive_yields_its_folder_and_no_temporary_files_remain(
    tmp_path: Path, temporary: Path, suffix: str, prefix: str
) -> None:
    path = pack(tmp_path / f"a.{suffix}", {prefix + name: FILES[name] for name in FILES})
    with unpacked(path) as folder:
        assert {p.name: p.read_bytes() for p in folder.iterdir()} == FILES
    assert not list(temporary.iterdir())


@pytest.mark.parametrize(("suffix", "module"), [("gz", gzip), ("bz2", bz2), ("xz", lzma)])
def test_a_compressed_file_yields_the_file(tmp_path: Path, suffix: str, module: object) -> None:
    path = tmp_path / f"triples.tsv.{suffix}"
    path.write_bytes(module.compress(b"a\tr\tb\n"))  # type: ignore[attr-defined]
    with unpacked(path) as file:
        assert (file.name, file.read_bytes()) == ("triples.tsv", b"a\tr\tb\n")


def test_other_files_and_folders_are_yielded_unchanged(tmp_path: Path) -> None:
    for path in (tmp_path, tmp_path / "nothing.zip"):
        with unpacked(path) as content:
            assert content == path


@pytest.mark.parametrize("suffix", ["tar", "zip"])
@pytest.mark.parametrize(
    "name", ["../up.txt", "a/../../up.txt", "/abs.txt", "..\\up.txt", "C:\\up.txt", "C:/up.txt"]
)
def test_names_outside_the_archive_are_refused_before_anything_is_written(
    tmp_path: Path, temporary: Path, suffix: str, name: str
) -> None:
    path = pack(tmp_path / f"a.{suffix}", {"fine.txt": b"x", name: b"y"})
    with pytest.raises(DataError, match=r"leads out of the archive; do not unpack"), unpacked(path):
        pass
    assert not list(temporary.iterdir())
    assert not (tmp_path / "up.txt").exists()


@pytest.mark.parametrize(
    "kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE, tarfile.CHRTYPE]
)
def test_links_and_special_files_are_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        member = tarfile.TarInfo("train.txt")
        member.type, member.linkname = kind, "/etc/passwd"
        archive.addfile(member)
    with pytest.raises(DataError, match="expected a regular file"), unpacked(path):
        pass


def test_a_link_in_a_zip_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("train.txt")
        member.external_attr = 0o120777 << 16
        archive.writestr(member, "/etc/passwd")
    with pytest.raises(DataError, match="is a link or a special file"), unpacked(path):
        pass


def test_the_archive_may_contain_its_top_folder(tmp_path: Path) -> None:
    (tmp_path / "data").mkdir()
    for name, content in FILES.items():
        (tmp_path / "data" / name).write_bytes(content)
    for kind in ("gztar", "zip"):
        path = shutil.make_archive(str(tmp_path / "a"), kind, tmp_path / "data", ".")
        with unpacked(Path(path)) as folder:
            assert {p.name for p in folder.iterdir()} == set(FILES)


def test_a_repeated_name_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("train.txt", "a")
        archive.writestr("./train.txt", "b")
    with pytest.raises(DataError, match="is in the archive twice"), unpacked(path):
        pass


def test_a_name_of_both_a_file_and_a_folder_is_one_line(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.tar", {"a": b"x", "a/b": b"y"})
    with pytest.raises(DataError, match=rf"^{path}/a/b: cannot be written"), unpacked(path):
        pass


def test_files_added_by_macos_are_ignored(tmp_path: Path) -> None:
    extra = {"__MACOSX/data/._train.txt": b"x", "data/.DS_Store": b"x", "data/._train.txt": b"x"}
    path = pack(tmp_path / "a.zip", {**extra, "data/train.txt": b"a", "data/test.txt": b"b"})
    with unpacked(path) as folder:
        assert {p.name for p in folder.iterdir()} == {"train.txt", "test.txt"}


@pytest.mark.parametrize("suffix", ["tar.gz", "zip", "tsv.gz"])
def test_an_archive_larger_than_the_free_disk_is_refused(
    tmp_path: Path, temporary: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / f"a.{suffix}"
    content = b"0" * (3 << 20)
    if suffix == "tsv.gz":
        path.write_bytes(gzip.compress(content))
    else:
        pack(path, {"train.txt": content})
    usage = shutil.disk_usage(tmp_path)._replace(free=66 << 20)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(DataError, match=r"a\.\S+: unpacks to .* MiB or more, but"), unpacked(path):
        pass
    assert not list(temporary.iterdir())


def test_errors_name_the_archive_and_not_the_temporary_folder(tmp_path: Path) -> None:
    path = pack(tmp_path / "a.zip", FILES)
    with pytest.raises(DataError) as caught, unpacked(path) as folder:
        raise DataError(f"{folder / 'train.txt'}:3: wrong")
    assert str(caught.value) == f"{path}/train.txt:3: wrong"


def test_an_empty_archive_is_one_line(tmp_path: Path) -> None:
    with (
        pytest.raises(DataError, match="contains no files"),
        unpacked(pack(tmp_path / "a.tar", {})),
    ):
        pass


@pytest.mark.parametrize("suffix", [*SUFFIXES, "tsv.gz"])
@given(data=st.data())
def test_a_damaged_archive_is_read_or_refused_in_one_line(
    tmp_path_factory: pytest.TempPathFactory, suffix: str, data: st.DataObject
) -> None:
    path = tmp_path_factory.mktemp("archive") / f"a.{suffix}"
    if suffix == "tsv.gz":
        path.write_bytes(gzip.compress(b"a\tr\tb\n" * 20, mtime=0))
    else:
        pack(path, FILES)
    content = bytearray(path.read_bytes())
    if data.draw(st.booleans()):
        content = content[: data.draw(st.integers(0, len(content)))]
    else:
        position = data.draw(st.integers(0, len(content) - 1))
        content[position] = data.draw(st.integers(0, 255))
    path.write_bytes(content)
    try:
        with unpacked(path) as unpacked_path:
            assert unpacked_path.exists()
    except DataError as error:
        assert str(error).startswith(str(path))
        assert "\n" not in str(error)
