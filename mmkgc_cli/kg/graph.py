"""The prepared graph: vocabulary, splits and provenance in one HDF5 file."""

from __future__ import annotations

import dataclasses
import functools
import io
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import h5py
import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.kg import identity
from mmkgc_cli.state.atomic import write_bytes

FORMAT_VERSION = 1
FILE_NAME = "graph.h5"
SPLITS = ("train", "valid", "test")

Triples = NDArray[np.int32]


@dataclass(frozen=True)
class Provenance:
    """Where a graph comes from; empty strings where nobody said."""

    source: str = ""
    licence: str = ""
    citation: str = ""
    verified: bool = False  # the files had the checksums of datasets.toml


@dataclass(frozen=True, eq=False)
class Graph:
    """A knowledge graph with its splits.

    `train`, `valid` and `test` are int32 ``[n, 3]`` as head, relation, tail. Entities and
    relations are named by position. Labels, where given, are for printing only.
    """

    name: str
    entities: Sequence[str]
    relations: Sequence[str]
    train: Triples
    valid: Triples
    test: Triples
    entity_labels: Sequence[str] | None = None
    relation_labels: Sequence[str] | None = None
    provenance: Provenance = field(default_factory=Provenance)

    @property
    def splits(self) -> dict[str, Triples]:
        """The three splits by name."""
        return {"train": self.train, "valid": self.valid, "test": self.test}

    @property
    def counts(self) -> dict[str, int]:
        """The five counts: entities, relations, train, valid, test."""
        return {
            "entities": len(self.entities),
            "relations": len(self.relations),
            **{name: len(rows) for name, rows in self.splits.items()},
        }

    @functools.cached_property
    def entities_id(self) -> str:
        """Identity of the entity set."""
        return identity.entities_id(self.entities)

    @functools.cached_property
    def train_id(self) -> str:
        """Identity of the decoded train triples."""
        return identity.train_id(self.entities, self.relations, self.train)

    @functools.cached_property
    def fingerprint(self) -> str:
        """Identity of vocabulary and splits."""
        return identity.fingerprint(self.entities, self.relations, list(self.splits.values()))

    @functools.cached_property
    def order_id(self) -> str:
        """Identity of the vocabulary in this order: which weights fit row by row."""
        return identity.order_id(self.entities, self.relations)

    def unseen(self) -> dict[str, int]:
        """How many valid and test triples have an entity or a relation that train lacks."""
        entities = np.zeros(len(self.entities), dtype=bool)
        relations = np.zeros(len(self.relations), dtype=bool)
        entities[self.train[:, [0, 2]]] = True
        relations[self.train[:, 1]] = True

        def count(rows: Triples) -> int:
            seen = entities[rows[:, 0]] & relations[rows[:, 1]] & entities[rows[:, 2]]
            return int((~seen).sum())

        return {"valid": count(self.valid), "test": count(self.test)}

    def decode(self, triple: Sequence[int] | NDArray[np.int32]) -> tuple[str, str, str]:
        """The names (labels, where there are any) of a head, relation, tail triple."""
        entities = self.entity_labels or self.entities
        relations = self.relation_labels or self.relations
        return entities[triple[0]], relations[triple[1]], entities[triple[2]]


def write_graph(graph: Graph, folder: Path) -> Path:
    """Writes ``folder/graph.h5`` atomically and returns its path.

    The file is composed in memory first, so that a full disk is met by a plain write and not
    inside the HDF5 library.
    """
    image = io.BytesIO()
    with h5py.File(image, "w") as file:
        for name, rows in graph.splits.items():
            file.create_dataset(
                name, data=rows, dtype="<i4", maxshape=(None, 3), chunks=True,
                compression="gzip", compression_opts=1, shuffle=True, fletcher32=True,
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
            }
        )
    path = folder / FILE_NAME
    write_bytes(path, image.getbuffer())
    return path


def load_graph(folder: Path) -> Graph:
    """Reads a prepared graph from its folder (or from the file itself).

    Raises:
        DataError: when it is missing, truncated, of another format version, or inconsistent.
    """
    path = folder if folder.suffix == ".h5" else folder / FILE_NAME
    if not path.is_file():
        raise DataError(f"{path}: no such file; make it with `mmkgc prepare`")
    try:
        with h5py.File(path, "r") as file:
            return _read(path, file)
    except (OSError, KeyError, RuntimeError) as error:
        reason = str(error).strip("'\"").splitlines()[0] if str(error) else type(error).__name__
        raise DataError(
            f"{path}: damaged or not a prepared graph ({reason}); prepare it again"
        ) from error


def _read(path: Path, file: h5py.File) -> Graph:
    version = int(file.attrs["format_version"])
    if version != FORMAT_VERSION:
        raise DataError(
            f"{path}: format version {version}, expected {FORMAT_VERSION}; prepare it again"
        )

    def names(key: str) -> list[str] | None:
        return list(file[key].asstr()[:]) if key in file else None

    def text(key: str) -> str:
        return str(file.attrs[key])

    entities, relations = names("entities"), names("relations")
    if entities is None or relations is None:
        raise DataError(f"{path}: holds no vocabulary; prepare it again")
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
            text("source"), text("licence"), text("citation"), bool(file.attrs["verified"])
        ),
    )
    if graph.order_id != text("order_id"):
        raise DataError(f"{path}: the vocabulary does not match its checksum; prepare it again")
    # The triples carry a checksum a chunk, so the identities need not be computed again.
    for key in ("entities_id", "train_id", "fingerprint"):
        graph.__dict__[key] = text(key)
    return graph


def _triples(path: Path, dataset: Any, n_entities: int, n_relations: int) -> Triples:
    rows: Triples = dataset[:]
    if rows.ndim != 2 or rows.shape[1] != 3 or rows.dtype != np.int32:
        raise DataError(
            f"{path}: {dataset.name} is {rows.dtype} {rows.shape}, expected int32 [n, 3]"
        )
    bounds = np.array([n_entities, n_relations, n_entities])
    if len(rows) and not ((rows >= 0) & (rows < bounds)).all():
        raise DataError(f"{path}: {dataset.name} holds an id out of range; prepare it again")
    return rows
