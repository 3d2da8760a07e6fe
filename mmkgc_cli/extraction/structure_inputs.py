"""Train triples of an entity as text: the optional structure initialisation of MoCME."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import UsageError
from mmkgc_cli.extraction.contract import Input, InputOptions, InputSet
from mmkgc_cli.kg.graph import Graph


def find(graph: Graph, options: InputOptions) -> InputSet[str]:
    """Makes sentences "head relation tail" from the train triples of each entity.

    Labels replace names if the graph has them. Sentences are sorted by name, so that the text does
    not depend on the order of entities, relations or triples.

    Raises:
        UsageError: an input file is given.
    """
    if options.path is not None:
        raise UsageError(
            "--input: structure is made from the train triples of the graph", fix="remove --input"
        )
    heads, tails = graph.train[:, 0], graph.train[:, 2]
    # Each triple belongs to its head and its tail; triples are grouped by entity.
    owner = np.concatenate([heads, tails])
    triple = np.tile(np.arange(len(graph.train)), 2)
    once = np.ones(len(owner), dtype=bool)
    once[len(heads) :] = heads != tails
    owner, triple = owner[once], triple[once]
    order = np.argsort(owner, kind="stable")
    numbers, starts = np.unique(owner[order], return_index=True)
    groups = np.split(triple[order], starts[1:])
    sentences = _Sentences(graph)
    inputs = {}
    for number, group in zip(numbers.tolist(), groups, strict=True):
        name = graph.entities[number]
        load = functools.partial(sentences.text, group)
        inputs[name] = [Input(name, f"train triples of {name}", load, len(group))]
    labels = "labels" if graph.entity_labels is not None else "names"
    return InputSet(
        inputs, f"{graph.name} train {graph.train_id}", f"train triples by {labels}",
        train_id=graph.train_id,
    )  # fmt: skip


class _Sentences:
    """Converts triples to sentences with labels or names, sorted by name."""

    def __init__(self, graph: Graph) -> None:
        self._graph = graph
        self._entities = _plain(graph.entity_labels or graph.entities)
        self._relations = _plain(graph.relation_labels or graph.relations)

    def text(self, triples: NDArray[np.int64]) -> str:
        graph = self._graph
        rows = graph.train[triples].tolist()
        rows.sort(key=lambda row: (graph.relations[row[1]], graph.entities[row[0]],
                                   graph.entities[row[2]]))  # fmt: skip
        return ". ".join(
            f"{self._entities[h]} {self._relations[r]} {self._entities[t]}" for h, r, t in rows
        )


def _plain(names: Sequence[str]) -> list[str]:
    """Names with separators replaced by spaces, for tokenizers."""
    separators = str.maketrans("_/.", "   ")
    return [" ".join(name.translate(separators).split()) or name for name in names]
