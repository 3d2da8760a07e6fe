"""Prepared graphs on disk: ``graph.h5``, with a checksum that is verified before HDF5 opens it."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import h5py
import numpy as np

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg.graph import Graph, Provenance
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.state.atomic import write_bytes

FORMAT_VERSION = 1
FILE_NAME = "graph.h5"

_BLOCK = 512  # bytes, the smallest user block of HDF5
_MAGIC = b"mmkgc graph\nsha256 "
_PREPARE_AGAIN = "prepare it again with --overwrite"


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
    return path


def load_graph(folder: Path) -> Graph:
    """Reads a prepared graph from its folder or file.

    Raises:
        DataError: when it is missing, damaged, changed, or has another format version.
    """
    path = folder if folder.is_file() else folder / FILE_NAME
    if not path.is_file():
        raise DataError(f"{path}: no such file", fix="make it with `mmkgc prepare`")
    _verify(path)
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file)
    except (OSError, KeyError, RuntimeError, ValueError) as error:
        reason = str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
        raise DataError(f"{path}: not a prepared graph ({reason})", fix=_PREPARE_AGAIN) from error


def _verify(path: Path) -> None:
    """Verifies the checksum of the file before the HDF5 library reads it."""
    try:
        with path.open("rb") as file:
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


def _read(path: Path, file: h5py.File) -> Graph:
    version = int(file.attrs["format_version"])
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version {version}, expected {FORMAT_VERSION}", fix=_PREPARE_AGAIN
        )

    def names(key: str) -> list[str] | None:
        return list(file[key].asstr()[:]) if key in file else None

    def text(key: str) -> str:
        return str(file.attrs[key])

    entities, relations = names("entities"), names("relations")
    if entities is None or relations is None:
        raise DataError(f"{path}: contains no vocabulary", fix=_PREPARE_AGAIN)
    graph = Graph(
        name=text("name"),
        entities=entities,
        relations=relations,
        train=_triples(path, file["train"], len(entities), len(relations)),
        valid=_triples(path, file["valid"], len(entities), len(relations)),
        test=_triples(path, file["test"], len(entities), len(relations)),
        entity_labels=names("entity_labels"),
        relation_labels=names("relation_labels"),
        provenance=Provenance(
            text("source"),
            text("licence"),
            text("citation"),
            bool(file.attrs["verified"]),
            tuple(json.loads(text("notes"))) if "notes" in file.attrs else (),
        ),
    )
    # The verified checksum covers the stored identities, so they are not computed again.
    for key in ("entities_id", "train_id", "fingerprint", "order_id"):
        graph.__dict__[key] = text(key)
    return graph


def _triples(path: Path, dataset: Any, n_entities: int, n_relations: int) -> Triples:
    rows: Triples = dataset[:]
    if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype != np.int32:
        raise DataError(
            f"{path}: {dataset.name} is {rows.dtype} {rows.shape}, expected int32 [n, 3]",
            fix=_PREPARE_AGAIN,
        )
    bounds = np.array([n_entities, n_relations, n_entities])
    if len(rows) and not ((rows >= 0) & (rows < bounds)).all():
        raise DataError(f"{path}: {dataset.name} contains an id out of range", fix=_PREPARE_AGAIN)
    return rows
