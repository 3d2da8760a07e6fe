"""Fuzz targets of the readers of graphs, tables of texts and numbers, and lists of ids."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.extraction import numeric_inputs, pictures, sounds, text_inputs
from mmkgc_cli.extraction.contract import InputOptions, Skip
from mmkgc_cli.extraction.files import find_files
from mmkgc_cli.features.masks import read_mask_file
from mmkgc_cli.kg.archives import unpacked
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.labels import with_labels
from mmkgc_cli.kg.readers.id_rows import read_id_rows
from mmkgc_cli.kg.readers.libkge import read_libkge
from mmkgc_cli.kg.readers.named_triples import read_named
from mmkgc_cli.kg.readers.ntriples import read_ntriples
from mmkgc_cli.kg.readers.openke import read_openke, read_vocabulary
from mmkgc_cli.kg.texts import readers
from tests.fuzz.hdf5_files import IDS, graph

BOM = b"\xef\xbb\xbf"


def _lines(data: bytes) -> list[str]:
    """The lines that are not blank, by a simple reference reader."""
    lines = [line.rstrip(b"\r") for line in data.removeprefix(BOM).split(b"\n")]
    return [line.decode() for line in lines if line.strip(b" \t\r")]


def _is_count(line: str) -> bool:
    return line.strip().isascii() and line.strip().isdigit() and len(line.strip()) <= 18


def _without_count(data: bytes) -> list[str]:
    first = data.removeprefix(BOM).split(b"\n")[0].rstrip(b"\r").decode("utf-8", "replace")
    lines = _lines(data)
    return lines[1:] if _is_count(first) else lines


def _decoded(graph: Graph) -> list[tuple[str, str, str]]:
    return [graph.decode(row) for row in graph.train]


def hrt(data: bytes, folder: Path) -> None:
    path = folder / "t.tsv"
    path.write_bytes(data)
    graph = read_named(path, "g", "hrt", trust_order=True)
    expected = [[part.strip(" ") for part in line.split("\t")] for line in _without_count(data)]
    assert [list(row) for row in _decoded(graph)] == expected


def htr(data: bytes, folder: Path) -> None:
    path = folder / "t.tsv"
    path.write_bytes(data)
    read_named(path, "g", "htr")


def ids(data: bytes, folder: Path) -> None:
    path = folder / "rows.txt"
    path.write_bytes(data)
    rows = read_id_rows(path, "head tail relation", "triples")
    assert rows.tolist() == [[int(part) for part in line.split()] for line in _without_count(data)]


def vocabulary(data: bytes, folder: Path) -> None:
    path = folder / "entity2id.txt"
    path.write_bytes(data)
    errors = []
    for id_first in (False, True):
        try:
            names = read_vocabulary(path, "entity", id_first=id_first)
        except MmkgcError as error:
            errors.append(error)
            continue
        assert len(set(names)) == len(names) == len(_without_count(data))
        assert all(name and name == name.strip(" ") for name in names)
    if len(errors) == 2:
        raise errors[0]


def openke(data: bytes, folder: Path) -> None:
    (folder / "entity2id.txt").write_text("a 0\nb 1\nc d 2\n")
    (folder / "relation2id.txt").write_text("r\t0\ns\t1\n")
    for split in ("train", "valid", "test"):
        (folder / f"{split}2id.txt").write_bytes(data)
    assert (read_openke(folder, "g").train < 3).all()


def libkge(data: bytes, folder: Path) -> None:
    """The bytes are dataset.yaml, rows and labels, separated by NUL."""
    yaml, _, rest = data.partition(b"\0")
    rows, _, labels = rest.partition(b"\0")
    (folder / "dataset.yaml").write_bytes(yaml)
    (folder / "e.del").write_text("0\ta\n1\tb\n")
    (folder / "r.del").write_text("0\tr\n")
    (folder / "t.del").write_bytes(rows)
    (folder / "l.del").write_bytes(labels)
    read_libkge(folder, "g")


def ntriples(data: bytes, folder: Path) -> None:
    path = folder / "t.nt"
    path.write_bytes(data)
    graph = read_ntriples(path, "g")
    for name in (*graph.entities, *graph.relations):
        assert name
        assert not any(ord(c) < 32 or ord(c) == 127 for c in name)


def labels(data: bytes, folder: Path) -> None:
    path = folder / "l.tsv"
    path.write_bytes(data)
    rows = np.array([[0, 0, 1]], dtype=np.int32)
    graph = Graph("g", ["a", "b"], ["r"], rows, rows[:0], rows[:0])
    try:
        with_labels(graph, path)
    except MmkgcError:
        with_labels(graph, path, "label")


def archive(data: bytes, folder: Path) -> None:
    """The first byte selects the type of archive."""
    suffixes = ("zip", "tar", "tar.gz", "tar.xz", "tar.bz2", "tsv.gz", "tsv.xz", "tsv.bz2")
    path = folder / f"a.{suffixes[data[0] % len(suffixes) if data else 0]}"
    path.write_bytes(data[1:])
    with unpacked(path) as content:
        assert content.exists()
        assert not (folder / "up").exists()


def texts(data: bytes, folder: Path) -> None:
    """The first byte selects the reader of a published file of texts or numbers."""
    read, name = (
        (readers.read_items, "items.json"),
        (readers.read_types, "types.json"),
        (readers.read_type_texts, "type-texts.json"),
        (readers.read_same_as, "links.nt"),
        (readers.read_numbers, "numbers.tsv"),
        (readers.read_literals, "literals.tsv"),
        (readers.read_pairs, "pairs.tsv"),
    )[data[0] % 7 if data else 0]
    path = folder / name
    path.write_bytes(data[1:])
    read(path)


def text_inputs_of_extract(data: bytes, folder: Path) -> None:
    """The first byte selects a table or JSON lines, and the columns."""
    first = data[0] if data else 0
    path = folder / ("texts.jsonl" if first % 2 else "texts.tsv")
    path.write_bytes(data[1:])
    columns = ("text",) if first % 4 > 1 else ()
    found = text_inputs.find(graph(), InputOptions(path, columns))
    _check_inputs(found.inputs)


def number_inputs_of_extract(data: bytes, folder: Path) -> None:
    path = folder / "numbers.tsv"
    path.write_bytes(data)
    _check_inputs(numeric_inputs.find(graph(), InputOptions(path)).inputs)


def picture_index(data: bytes, folder: Path) -> None:
    """Lines of an entity and a path; the files outside of the folder must not be read."""
    path = folder / "index.tsv"
    path.write_bytes(data)
    find_files(graph(), InputOptions(path), "pictures", ("image",))


def _check_inputs(inputs: Any) -> None:
    assert set(inputs) <= set(IDS)
    for items in inputs.values():
        for item in items:
            try:
                item.load()
            except Skip as reason:
                assert "\n" not in str(reason)


def mask_file(data: bytes, folder: Path) -> None:
    path = folder / "mask.txt"
    path.write_bytes(data)
    mask = read_mask_file(path, IDS)
    assert mask.dtype == np.bool_
    assert int(mask.sum()) == len(_lines(data))


def picture(data: bytes, folder: Path) -> None:
    try:
        decoded = pictures.decode(data)
    except Skip as reason:
        assert "\n" not in str(reason)
    else:
        assert decoded.mode == "RGB"


def sound(data: bytes, folder: Path) -> None:
    try:
        clips = sounds.read_clips(io.BytesIO(data), 16_000)
    except Skip as reason:
        assert "\n" not in str(reason)
    else:
        assert all(np.isfinite(clip).all() for clip in clips)
