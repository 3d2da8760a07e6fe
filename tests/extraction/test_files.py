"""Which files belong to which entity, in folders, indexes and archives."""

from __future__ import annotations

import contextlib
import io
import os
import stat
import tarfile
import tempfile
import zipfile
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import quote

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.extraction.contract import InputOptions, InputSet, Skip
from mmkgc_cli.extraction.files import LARGEST, File, find_files
from mmkgc_cli.kg.graph import Graph

NAMES = ["Q1", "Q2", "/m/0154j", "Washington, D.C.", "a/b", "50%", "日本", "é", "m.07"]


def graph_of(names: Sequence[str]) -> Graph:
    none = np.zeros((0, 3), dtype=np.int32)
    return Graph("small", list(names), ["r"], np.array([[0, 0, 0]], dtype=np.int32), none, none)


def find(
    source: Path | None, columns: Sequence[str] = (), names: Sequence[str] = NAMES
) -> InputSet[File]:
    options = InputOptions(source, tuple(columns))
    return find_files(graph_of(names), options, "pictures", ("image",)).to_input_set(
        lambda file: file
    )


def contents(input_set: InputSet[File]) -> dict[str, list[bytes]]:
    return {e: [entry.load().read() for entry in inputs] for e, inputs in input_set.inputs.items()}


def write(folder: Path, files: dict[str, bytes]) -> Path:
    for name, data in files.items():
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)
    return folder


LAYOUT = {
    "Q1/2.png": b"q1 second",
    "Q1/1.png": b"q1 first",
    "Q2.jpeg": b"q2",
    "%2Fm%2F0154j/x.png": b"belgium",
    "Washington, D.C..png": b"dc",
    "a%2Fb": b"slash",
    "50%.gif": b"half",
    "日本/flag": b"japan",
    "unknown/1.png": b"?",
    "unknown/2.png": b"?",
    "other.png": b"?",
    "Q1/.hidden": b"no",
    "Q1/Thumbs.db": b"no",
    ".DS_Store": b"no",
}
EXPECTED = {
    "Q1": [b"q1 first", b"q1 second"],
    "Q2": [b"q2"],
    "/m/0154j": [b"belgium"],
    "Washington, D.C.": [b"dc"],
    "a/b": [b"slash"],
    "50%": [b"half"],
    "日本": [b"japan"],
}


def zipped(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files.items():
            archive.writestr(name, data)
    return path


def tarred(mode: str) -> Callable[[Path, dict[str, bytes]], Path]:
    def make(path: Path, files: dict[str, bytes]) -> Path:
        with tarfile.open(path, mode) as archive:  # type: ignore[call-overload]
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                archive.addfile(info, io.BytesIO(data))
        return path

    return make


KINDS = {
    "folder": write,
    "zip": zipped,
    "tar": tarred("w"),
    "tar.gz": tarred("w:gz"),
    "tar.bz2": tarred("w:bz2"),
    "tar.xz": tarred("w:xz"),
}


@pytest.mark.parametrize("form", KINDS)
def test_a_folder_and_its_archives_have_the_same_files(form: str, tmp_path: Path) -> None:
    input_set = find(KINDS[form](tmp_path / "pictures", LAYOUT))
    assert contents(input_set) == EXPECTED
    assert (input_set.outside, input_set.outside_example) == (2, "other")
    assert not input_set.skipped


@pytest.mark.parametrize("form", KINDS)
def test_a_folder_around_them_does_not_matter(form: str, tmp_path: Path) -> None:
    nested = {f"release 3/pictures/{name}": data for name, data in LAYOUT.items()}
    assert contents(find(KINDS[form](tmp_path / "all", nested))) == EXPECTED


@pytest.mark.parametrize("form", KINDS)
def test_members_can_be_read_in_any_order_and_several_at_once(form: str, tmp_path: Path) -> None:
    data = {f"Q1/{i:03}": bytes([i]) * (1000 * i) for i in range(1, 40)}
    inputs = find(KINDS[form](tmp_path / "pictures", data)).inputs["Q1"]
    with contextlib.ExitStack() as stack:
        opened = [stack.enter_context(entry.load().open()) for entry in reversed(inputs)]
        for file, name in zip(opened, sorted(data, reverse=True), strict=True):
            assert file.read(10) == data[name][:10]
            file.seek(-5, os.SEEK_END)
            assert file.read() == data[name][-5:]
            file.seek(0)
            assert file.read() == data[name]


@given(st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=40))
def test_any_entity_has_a_file_name_by_percent_encoding(name: str) -> None:
    escaped = quote(name, safe="").replace(".", "%2E")
    with tempfile.TemporaryDirectory() as folder:
        path = zipped(Path(folder) / "x", {f"{escaped}.png": b"x", f"in/{escaped}/1.png": b"y"})
        input_set = contents(find(path, names=[name, "another"]))
    assert {entity: sorted(data) for entity, data in input_set.items()} == {name: [b"x", b"y"]}


def test_a_name_that_is_an_entity_matches_before_its_decoding(tmp_path: Path) -> None:
    """Both `a%2Fb` and its decoded form are entities, and both `m.07` and `/m/07`."""
    names = ["a%2Fb", "a/b", "m.07", "/m/07", "/m/08"]
    files = {"a%2Fb.png": b"1", "m.07.png": b"2", "m.08.png": b"3"}
    input_set = find(write(tmp_path / "x", files), names=names)
    assert contents(input_set) == {"a%2Fb": [b"1"], "m.07": [b"2"], "/m/08": [b"3"]}


def test_decomposed_names_as_macs_write_them_are_composed(tmp_path: Path) -> None:
    assert contents(find(write(tmp_path / "x", {"é.png": b"1"}))) == {"é": [b"1"]}


def test_links_within_a_folder_are_followed_without_a_loop(tmp_path: Path) -> None:
    folder = write(tmp_path / "pictures", {"Q1/1.png": b"1"})
    write(tmp_path / "elsewhere", {"2.png": b"2"})
    (folder / "Q2").symlink_to(tmp_path / "elsewhere")
    (folder / "Q1" / "loop").symlink_to(folder)
    (folder / "Q1" / "broken.png").symlink_to(tmp_path / "nothing")
    input_set = find(folder)
    assert [entry.load().read() for entry in input_set.inputs["Q2"]] == [b"2"]
    reasons = []
    for entry in input_set.inputs["Q1"]:
        try:
            assert entry.load().read() == b"1"
        except Skip as reason:
            reasons.append(str(reason))
    assert reasons == ["cannot be read: no such file or directory"]


# ---------------------------------------------------------------- what archives must not do


def bad_zip(path: Path) -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("Q1/1.png", b"good")
        archive.writestr("../Q1/up.png", b"out")
        archive.writestr("/Q1/root.png", b"out")
        archive.writestr("C:\\Q1\\drive.png", b"out")
        link = zipfile.ZipInfo("Q1/link.png")
        link.external_attr = (stat.S_IFLNK | 0o777) << 16
        archive.writestr(link, "/etc/passwd")
        secret = zipfile.ZipInfo("Q1/secret.png")
        archive.writestr(secret, b"encrypted")
    data = bytearray(path.read_bytes())
    offset = data.rfind(b"Q1/secret.png") - 46  # its entry in the list of contents
    data[offset + 8] |= 1
    path.write_bytes(data)
    return path


def bad_tar(path: Path) -> Path:
    with tarfile.open(path, "w:gz") as archive:
        for name, form, target in (
            ("Q1/1.png", tarfile.REGTYPE, ""),
            ("../Q1/up.png", tarfile.REGTYPE, ""),
            ("/Q1/root.png", tarfile.REGTYPE, ""),
            ("Q1/link.png", tarfile.SYMTYPE, "/etc/passwd"),
            ("Q1/hard.png", tarfile.LNKTYPE, "Q1/1.png"),
            ("Q1/pipe.png", tarfile.FIFOTYPE, ""),
        ):
            info = tarfile.TarInfo(name)
            info.type, info.linkname = form, target
            info.size = 4 if form == tarfile.REGTYPE else 0
            archive.addfile(info, io.BytesIO(b"good"))
    return path


@pytest.mark.parametrize(("make", "refused"), [(bad_zip, 5), (bad_tar, 5)])
def test_members_that_lead_out_or_are_no_files_are_refused_by_entity_and_nothing_is_written(
    make: Callable[[Path], Path], refused: int, tmp_path: Path
) -> None:
    relative = tmp_path / "deep" / "inside"
    relative.mkdir(parents=True)
    archive = make(relative / "pictures.x")
    input_set = find(archive)
    assert contents(input_set) == {"Q1": [b"good"]}
    assert len(input_set.skipped) == refused
    assert all(entry.origin.startswith(f"{archive}!") for entry in input_set.skipped)
    assert all(entry.reason.startswith("refused: ") for entry in input_set.skipped)
    assert {entry.entity for entry in input_set.skipped if "drive" not in entry.origin} == {"Q1"}
    assert [p for p in tmp_path.rglob("*") if p.is_file()] == [archive]


@pytest.mark.parametrize("form", ["zip", "tar", "tar.gz", "tar.xz"])
def test_a_truncated_archive_is_refused_in_one_line_or_its_members_are_skipped(
    form: str, tmp_path: Path
) -> None:
    path = KINDS[form](tmp_path / "a", {"Q1/1.png": b"x" * 3000, "Q2/1.png": os.urandom(3000)})
    data = path.read_bytes()
    for end in range(1, len(data) - 1, 97):
        path.write_bytes(data[:end])
        try:
            input_set = find(path)
        except DataError as error:
            assert str(error).startswith(str(path))
            assert "\n" not in str(error)
            continue
        for inputs in input_set.inputs.values():
            for entry in inputs:
                with contextlib.suppress(Skip):
                    assert len(entry.load().read()) == 3000


def test_a_member_with_a_wrong_checksum_is_skipped_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("Q1.png", b"first picture")
        archive.writestr("Q2.png", b"second picture")
    path.write_bytes(path.read_bytes().replace(b"first picture", b"worst picture"))
    input_set = find(path)
    assert input_set.inputs["Q2"][0].load().read() == b"second picture"
    with pytest.raises(Skip, match="damaged in the archive: Bad CRC-32"):
        input_set.inputs["Q1"][0].load().read()


def test_of_two_members_of_one_name_the_last_counts(tmp_path: Path) -> None:
    path = tmp_path / "a.tar"
    with tarfile.open(path, "w") as archive:
        for data in (b"old", b"new"):
            info = tarfile.TarInfo("Q1.png")
            info.size = 3
            archive.addfile(info, io.BytesIO(data))
    assert contents(find(path)) == {"Q1": [b"new"]}


# ---------------------------------------------------------------- indexes


def index(folder: Path, text: str) -> Path:
    write(folder, {"p/1.png": b"1", "p/2.png": b"2", "d/a.png": b"a", "d/b.png": b"b"})
    path = folder / "index.tsv"
    path.write_text(text, encoding="utf-8")
    return path


@pytest.mark.parametrize(
    "text",
    [
        "Q1\tp/1.png\nQ1\tp/2.png\n/m/0154j\td\n",
        "entity\tfile\nQ1\tp/1.png\nQ1\tp/2.png\n/m/0154j\td\n",
        "mid\tlabel\timage\nQ1\tx\tp/1.png\nQ1\ty\tp/2.png\n/m/0154j\tz\td\n",
        "image\tid\tPath\n?\tQ1\tp/1.png\n?\tQ1\tp/2.png\n?\t/m/0154j\td\n",
        "\ufeffentity\tfile\r\n\r\nQ1\tp/1.png\r\nQ1\tp/2.png\r\n/m/0154j\td\r\n",
    ],
)
def test_paths_of_an_index_are_relative_to_it(text: str, tmp_path: Path) -> None:
    input_set = find(index(tmp_path, text))
    assert contents(input_set) == {"Q1": [b"1", b"2"], "/m/0154j": [b"a", b"b"]}
    assert all(
        "index.tsv:" in entry.origin for inputs in input_set.inputs.values() for entry in inputs
    )


@pytest.mark.parametrize("column", ["code", "3"])
def test_columns_selects_the_path_column_of_an_index(column: str, tmp_path: Path) -> None:
    path = index(tmp_path, "entity\tfile\tcode\nQ1\tnothing\tp/1.png\n")
    input_set = find(path, [column])
    assert contents(input_set) == {"Q1": [b"1"]}
    assert input_set.preprocess == f"column {column}"


@pytest.mark.parametrize("name", ["..", "/", "p/../.."])
def test_a_folder_above_an_index_is_skipped_and_not_listed(name: str, tmp_path: Path) -> None:
    (tmp_path / "p").mkdir(exist_ok=True)
    input_set = find(index(tmp_path, f"entity\tfile\nQ1\t{name}\n"))
    with pytest.raises(Skip, match="is a folder above the index"):
        input_set.inputs["Q1"][0].load().read()


def test_missing_files_of_an_index_are_skipped_with_the_line(tmp_path: Path) -> None:
    text = "Q1\tp/3.png\nQ2\thttps://example.org/1.png\n/m/0154j\t\nm.07\tp\0.png\n"
    input_set = find(index(tmp_path, text.replace("p\0.png", "x" * 5000)))
    reasons = {}
    for entity, inputs in input_set.inputs.items():
        with pytest.raises(Skip) as caught:
            inputs[0].load().read()
        reasons[entity] = str(caught.value)
    assert reasons == {
        "Q1": "cannot be read: no such file or directory",
        "Q2": "is a URL; download the file first",
        "m.07": "cannot be read: file name too long",
    }
    assert input_set.inputs["Q2"][0].origin == "https://example.org/1.png (index.tsv:2)"


@pytest.mark.parametrize(
    ("text", "columns", "message"),
    [
        ("Q1\n", [], ":1: one column, expected an entity and a path"),
        ("Q1\tp/1.png\nQ2\n", [], ":2: 'Q2' has too few columns; write an entity and a path"),
        ("Q1\ta\tp/1.png\n", [], ":1: 3 columns and no header .* --columns 2"),
        ("", [], "the file is empty"),
        ("Q1\t\x07\n", [], ":1: holds the control character 0x07"),
    ],
)
def test_an_index_that_cannot_be_read_is_one_line(
    text: str, columns: list[str], message: str, tmp_path: Path
) -> None:
    with pytest.raises(DataError, match=message):
        find(index(tmp_path, text), columns)


@pytest.mark.parametrize(
    ("columns", "message"),
    [(["4"], "from 2 to 3"), (["fle"], "did you mean 'file'"), (["a", "b"], "one path column")],
)
def test_missing_columns_are_usage_errors(columns: list[str], message: str, tmp_path: Path) -> None:
    with pytest.raises(UsageError, match=message):
        find(index(tmp_path, "entity\tfile\tcode\nQ1\tp/1.png\tx\n"), columns)


def test_a_source_is_needed_and_must_exist(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="no source of pictures; add --input"):
        find(None)
    with pytest.raises(DataError, match="cannot be read: no such file"):
        find(tmp_path / "nothing")
    with pytest.raises(UsageError, match="is not an index"):
        find(tmp_path, ["file"])


# ---------------------------------------------------------------- what is said of the source


def test_the_source_hash_follows_from_entities_and_bytes_alone(tmp_path: Path) -> None:
    entry = find(write(tmp_path / "1" / "p", {"Q1.png": b"1", "Q2.png": b"2"}))
    other = find(write(tmp_path / "2" / "p", {"Q2/b.gif": b"2", "Q1/a.gif": b"1", "x": b"3"}))
    assert entry.source == other.source
    turned = find(write(tmp_path / "3" / "p", {"Q1.png": b"2", "Q2.png": b"1"}))
    assert turned.source != entry.source
    reversed_graph = find(tmp_path / "1" / "p", names=NAMES[::-1])
    assert reversed_graph.source == entry.source


def test_empty_and_huge_files_are_skipped_without_being_read(tmp_path: Path) -> None:
    folder = write(tmp_path / "p", {"Q1.png": b""})
    with (folder / "Q2.png").open("wb") as file:
        file.truncate(LARGEST + 1)
    input_set = find(folder)
    with pytest.raises(Skip, match="^the file is empty$"):
        input_set.inputs["Q1"][0].load().read()
    with pytest.raises(Skip, match="^larger than 256 MiB$"):
        input_set.inputs["Q2"][0].load().read()
