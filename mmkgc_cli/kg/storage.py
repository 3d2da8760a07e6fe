"""Prepared graphs on disk: ``graph.h5``, with a checksum that is verified before HDF5 opens it.

The checksum shows damage, but anybody can compute it. A file of unknown origin is therefore first
read in a child process, which checks its structure and computes the identities again. That is
recorded by the checksum, so it happens once.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg import inspected
from mmkgc_cli.kg.graph import Graph, Provenance
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.state.atomic import write_bytes
from mmkgc_cli.state.hdf5 import (
    declared_bytes,
    integer_attribute,
    plain_datasets,
    text_attribute,
)
from mmkgc_cli.state.parsing import parse_json
from mmkgc_cli.state.regular import open_regular
from mmkgc_cli.state.sandbox import Limits, Peer, Session
from mmkgc_cli.text import byte_text, reason_of

FORMAT_VERSION = 1
FILE_NAME = "graph.h5"

_BLOCK = 512  # bytes, the smallest user block of HDF5
_MAGIC = b"mmkgc graph\nsha256 "
_PREPARE_AGAIN = "prepare it again with --overwrite"
_IDENTITIES = ("entities_id", "train_id", "fingerprint", "order_id")
_TASK = "mmkgc_cli.kg.storage:inspect"
_CONTROL = re.compile("[\x00-\x1f\x7f]")
_MOST_COMPRESSED = 1100  # gzip compresses zeros 1032-fold


def write_graph(graph: Graph, folder: Path) -> Path:
    """Writes ``folder/graph.h5`` atomically and returns its path.

    The file is composed in memory first, so that a full disk fails a plain write and not the HDF5
    library. Its user block, which HDF5 ignores, contains a checksum of the rest.
    """
    image = io.BytesIO()
    with h5py.File(image, "w", userblock_size=_BLOCK) as file:
        for name, rows in graph.splits.items():
            file.create_dataset(
                name, data=rows, dtype="<i4", maxshape=(None, 3), chunks=True,
                compression="gzip", compression_opts=1, shuffle=True,
            )  # fmt: skip
        text = h5py.string_dtype("utf-8")
        for name, values in (
            ("entities", graph.entities),
            ("relations", graph.relations),
            ("entity_labels", graph.entity_labels),
            ("relation_labels", graph.relation_labels),
        ):
            if values is not None:
                file.create_dataset(name, data=np.array(values, dtype=object), dtype=text)
        file.attrs.update(
            {
                "format_version": FORMAT_VERSION,
                "name": graph.name,
                "entities_id": graph.entities_id,
                "train_id": graph.train_id,
                "fingerprint": graph.fingerprint,
                "order_id": graph.order_id,
                **dataclasses.asdict(graph.provenance),
                "notes": json.dumps(graph.provenance.notes, ensure_ascii=False),
            }
        )
    path = folder / FILE_NAME
    with image.getbuffer() as data:
        digest = hashlib.sha256(data[_BLOCK:]).hexdigest()
        data[:_BLOCK] = (_MAGIC + digest.encode() + b"\n").ljust(_BLOCK, b"\0")
        write_bytes(path, data)
    inspected.record(inspected.contents_key("graph", digest))
    return path


def load_graph(folder: Path) -> Graph:
    """Reads a prepared graph from its folder or file.

    Raises:
        DataError: when it is missing, damaged, changed, or has another format version; when its
            contents are not those of a graph, or its identities not those of its contents.
    """
    path = folder / FILE_NAME if folder.is_dir() or not folder.exists() else folder
    with open_regular(path, missing="make it with `mmkgc prepare`") as file:
        key = inspected.contents_key("graph", _verify(path, file))
        if not inspected.is_inspected(key):
            size = os.fstat(file.fileno()).st_size
            limits = Limits(
                memory=(2 << 30) + 32 * size,
                cpu_seconds=5 + (size >> 20),
                answer_seconds=120.0 + (size >> 20),
            )
            arguments = {"path": str(path)}
            with Session(_TASK, path, file, arguments, limits, fix=_PREPARE_AGAIN) as session:
                session.answer()
            inspected.record(key)
        return _open(path, file)


def inspect(peer: Peer, file: io.FileIO, arguments: Mapping[str, Any]) -> None:
    """Reads a graph in a child and checks what `_read` takes for granted."""
    path = Path(arguments["path"])
    graph = _open(path, file)
    stored = {key: graph.__dict__.pop(key) for key in _IDENTITIES}
    for noun, names in (("entities", graph.entities), ("relations", graph.relations)):
        if len(set(names)) != len(names):
            raise _refusal(path, f"{noun} contains a name twice")
        if "" in names or _CONTROL.search("".join(names)):
            raise _refusal(path, f"{noun} contains an empty name or a control character")
    for key, value in stored.items():
        if getattr(graph, key) != value:
            raise _refusal(path, f"the {key} in the file is not that of its contents")
    peer.send({})


def _refusal(path: Path, reason: str) -> DataError:
    return DataError(f"{path}: not a prepared graph ({reason})", fix=_PREPARE_AGAIN)


def _verify(path: Path, file: io.FileIO) -> str:
    """Verifies the checksum of the file before the HDF5 library reads it, and returns it."""
    try:
        block = file.read(_BLOCK)
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    except OSError as error:
        raise DataError(
            f"{path}: cannot be read: {error.strerror}", fix="check the permissions of the file"
        ) from error
    if not block.startswith(_MAGIC):
        raise DataError(f"{path}: not a graph prepared by mmkgc, or truncated", fix=_PREPARE_AGAIN)
    if block[len(_MAGIC) :].split(b"\n")[0].decode("ascii", "replace") != digest:
        raise DataError(f"{path}: damaged or changed since it was prepared", fix=_PREPARE_AGAIN)
    return digest


def _open(path: Path, file: io.FileIO) -> Graph:
    """Reads a graph; what the HDF5 library raises on a malformed file becomes a `DataError`."""
    try:
        with h5py.File(file, "r") as opened:
            return _read(path, opened)
    except (OSError, KeyError, RuntimeError, ValueError, TypeError, OverflowError) as error:
        raise _refusal(path, reason_of(error)) from error


def _read(path: Path, file: h5py.File) -> Graph:
    version = integer_attribute(file.attrs, "format_version")
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version {version}, expected {FORMAT_VERSION}", fix=_PREPARE_AGAIN
        )
    datasets = dict(plain_datasets(path, file, _PREPARE_AGAIN))
    size = file.id.get_filesize()
    for name, dataset in datasets.items():
        if declared_bytes(dataset) > _MOST_COMPRESSED * size:
            declared = byte_text(declared_bytes(dataset))
            raise ValueError(f"{name} declares {declared}, more than the file can contain")

    def names(key: str) -> list[str]:
        if datasets[key].ndim != 1:
            raise ValueError(f"{key} has shape {datasets[key].shape}, expected one name per row")
        return list(datasets[key].asstr()[:])

    def labels(key: str, vocabulary: list[str]) -> list[str] | None:
        if key not in datasets:
            return None
        values = names(key)
        if len(values) != len(vocabulary):
            raise ValueError(f"{key} has {len(values)} rows, expected {len(vocabulary)}")
        return values

    def text(key: str) -> str:
        return text_attribute(file.attrs, key)

    if not {"entities", "relations"} <= datasets.keys():
        raise ValueError("contains no vocabulary")
    entities, relations = names("entities"), names("relations")
    counts = len(entities), len(relations)
    graph = Graph(
        name=text("name"),
        entities=entities,
        relations=relations,
        train=_triples(path, datasets, "train", *counts),
        valid=_triples(path, datasets, "valid", *counts),
        test=_triples(path, datasets, "test", *counts),
        entity_labels=labels("entity_labels", entities),
        relation_labels=labels("relation_labels", relations),
        provenance=Provenance(
            text("source"),
            text("licence"),
            text("citation"),
            _is_verified(file.attrs["verified"]),
            _notes(path, text("notes")) if "notes" in file.attrs else (),
        ),
    )
    # `inspect` or the process that wrote the file has computed them.
    for key in _IDENTITIES:
        graph.__dict__[key] = text(key)
    return graph


def _is_verified(value: Any) -> bool:
    if not isinstance(value, (bool, np.bool_)):
        raise ValueError(f"attribute 'verified' is {type(value).__name__}, expected a truth value")
    return bool(value)


def _notes(path: Path, text: str) -> tuple[str, ...]:
    notes = parse_json(text, f"{path}: attribute 'notes'", fix=_PREPARE_AGAIN)
    if not isinstance(notes, list) or not all(isinstance(note, str) for note in notes):
        raise ValueError("attribute 'notes' is not a list of strings")
    return tuple(notes)


def _triples(
    path: Path, datasets: Mapping[str, h5py.Dataset], name: str, n_entities: int, n_relations: int
) -> Triples:
    if name not in datasets:
        raise ValueError(f"contains no array {name!r}")
    dataset = datasets[name]
    if dataset.ndim != 2 or dataset.shape[1] != 3 or dataset.dtype != np.int32:
        raise DataError(
            f"{path}: {name} is {dataset.dtype} {dataset.shape}, expected int32 [n, 3]",
            fix=_PREPARE_AGAIN,
        )
    rows: Triples = dataset[:]
    bounds = np.array([n_entities, n_relations, n_entities])
    if len(rows) and not ((rows >= 0) & (rows < bounds)).all():
        raise DataError(f"{path}: {name} contains an id out of range", fix=_PREPARE_AGAIN)
    return rows
