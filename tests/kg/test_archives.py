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
from mmkgc_cli.kg import archives
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


def refused(path: Path, max_bytes: int | None = None) -> str:
    """The error of unpacking, which must be one line and leave no files."""
    with pytest.raises(DataError) as caught, unpacked(path, max_bytes):
        pass
    message = str(caught.value)
    assert message.startswith(str(path))
    assert message.isprintable()
    assert len(message) < 600
    assert not list(Path(tempfile.gettempdir()).iterdir())
    return message


BOMB = bytes(4 << 20)


@pytest.mark.parametrize("suffix", [*SUFFIXES, "tsv.gz", "tsv.bz2", "tsv.xz"])
def test_content_beyond_the_limit_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a.{suffix}"
    if suffix.startswith("tsv"):
        module = {"gz": gzip, "bz2": bz2, "xz": lzma}[suffix[4:]]
        path.write_bytes(module.compress(BOMB))
    else:
        pack(path, {"a": BOMB[: 1 << 20], "b": BOMB[: 3 << 20]})
    assert "more than the limit of 4,194,303 bytes" in refused(path, len(BOMB) - 1)
    with unpacked(path, len(BOMB)) as content:
        files = [content] if content.is_file() else list(content.iterdir())
        assert sum(file.stat().st_size for file in files) == len(BOMB)


def test_a_zip_with_a_false_size_writes_no_more_than_that_size(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("a", BOMB)
    content = path.read_bytes().replace(len(BOMB).to_bytes(4, "little"), b"\1\0\0\0")
    path.write_bytes(content)
    assert "damaged" in refused(path, 1000)


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_a_zip_that_would_be_unpacked_in_memory_is_refused(tmp_path: Path, method: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", method) as archive:
        archive.writestr("a", BOMB)
    assert "another method than deflate" in refused(path)


@pytest.mark.parametrize("suffix", ["tar", "tar.gz", "zip"])
def test_too_many_members_are_refused_before_anything_is_written(
    tmp_path: Path, suffix: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_MEMBERS", 1000)
    path = pack(tmp_path / f"a.{suffix}", {f"{i}.txt": b"" for i in range(1001)})
    assert "more than 1,000 files and folders" in refused(path)
    with unpacked(pack(path, {f"{i}.txt": b"" for i in range(1000)})) as folder:
        assert len(list(folder.iterdir())) == 1000


def test_archives_in_an_archive_stay_packed(tmp_path: Path) -> None:
    inner = gzip.compress(BOMB)
    for suffix in SUFFIXES:
        path = pack(tmp_path / f"a.{suffix}", {"b.tsv.gz": inner, "c.zip": inner})
        with unpacked(path, 100_000) as folder:
            assert {p.read_bytes() for p in folder.iterdir()} == {inner}


@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE, tarfile.GNUTYPE_LONGNAME])
def test_an_extended_header_that_fills_the_memory_is_refused(tmp_path: Path, kind: bytes) -> None:
    path = tmp_path / "a.tar"
    header = tarfile.TarInfo("x")
    header.type, header.size = kind, 1 << 33
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    assert "an extended header of 8,589,934,592 bytes" in refused(path)


def test_a_tar_of_nested_extended_headers_is_one_line(tmp_path: Path) -> None:
    header = tarfile.TarInfo("x")
    header.type, header.size = tarfile.XHDTYPE, 12
    path = tmp_path / "a.tar"
    path.write_bytes((header.tobuf() + b"12 a=bcdefg\n".ljust(512, b"\0")) * 3000)
    assert "damaged" in refused(path)


@pytest.mark.parametrize("size", [-1, -1024, 1 << 50])
def test_a_tar_with_an_impossible_size_is_one_line(tmp_path: Path, size: int) -> None:
    path = tmp_path / "a.tar"
    header = tarfile.TarInfo("x")
    header.size = size
    path.write_bytes(header.tobuf(tarfile.GNU_FORMAT) + bytes(2048))
    refused(path)
    record = b"size=%d\n" % size
    record = b"%d %s" % (len(record) + 3, record)
    extended = tarfile.TarInfo("p")
    extended.type, extended.size = tarfile.XHDTYPE, len(record)
    header.size = 0
    path.write_bytes(extended.tobuf() + record.ljust(512, b"\0") + header.tobuf() + bytes(2048))
    refused(path)


def test_a_sparse_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w", format=tarfile.PAX_FORMAT) as archive:
        member = tarfile.TarInfo("x")
        member.size = 1 << 20
        member.pax_headers = {"GNU.sparse.major": "1", "GNU.sparse.minor": "0"}
        archive.addfile(member, io.BytesIO(bytes(1 << 20)))
    assert "a sparse file" in refused(path)


@pytest.mark.parametrize("suffix", ["tar", "zip"])
@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("x" * 300,), "is longer than 255 bytes"),
        (("x" * 60_000,), "is longer than 255 bytes"),
        (("a/" * 2000 + "x",), "more than 64 folders"),
        (("Train.txt", "train.TXT"), "in the archive twice"),
        (("caf\u00e9", "cafe\u0301"), "in the archive twice"),
        (("../" + "x" * 5000,), "leads out of the archive"),
        (("..\x1b[31m\u202e/../x",), "leads out of the archive"),
    ],
)
def test_a_name_that_cannot_be_a_file_is_one_short_line(
    tmp_path: Path, suffix: str, names: tuple[str, ...], expected: str
) -> None:
    path = pack(tmp_path / f"a.{suffix}", {**dict.fromkeys(names, b""), "other": b""})
    assert expected in refused(path)


@pytest.mark.parametrize("file_type", [0o010000, 0o020000, 0o060000, 0o120000, 0o140000])
def test_special_files_in_a_zip_are_refused(tmp_path: Path, file_type: int) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w") as archive:
        member = zipfile.ZipInfo("train.txt")
        member.external_attr = (file_type | 0o777) << 16
        archive.writestr(member, "")
    assert "a link or a special file" in refused(path)
