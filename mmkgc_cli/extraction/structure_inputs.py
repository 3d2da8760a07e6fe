"""An entity's train triples as a text, MoCME's optional initialisation of structure."""

from __future__ import annotations

import functools
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import UsageError
from mmkgc_cli.extraction.contract import Found, Input, InputOptions
from mmkgc_cli.kg.graph import Graph


def find(graph: Graph, options: InputOptions) -> Found[str]:
    """Sentences "head relation tail", by labels where the graph has them, in the order of names.

    The order of a graph's entities, relations or triples has no part in it.

    Raises:
        UsageError: for an input file, which there is no use for.
    """
    if options.path is not None:
        raise UsageError("--input: structure is made from the graph's own train triples")
    heads, tails = graph.train[:, 0], graph.train[:, 2]
    # Each triple once for its head and once for its tail, grouped by entity.
    owner = np.concatenate([heads, tails])
    triple = np.tile(np.arange(len(graph.train)), 2)
    once = np.ones(len(owner), dtype=bool)
    once[len(heads) :] = heads != tails
    owner, triple = owner[once], triple[once]
    order = np.argsort(owner, kind="stable")
    numbers, starts = np.unique(owner[order], return_index=True)
    groups = np.split(triple[order], starts[1:])
    words = _Words(graph)
    inputs = {}
    for number, group in zip(numbers.tolist(), groups, strict=True):
        name = graph.entities[number]
        load = functools.partial(words.text, group)
        inputs[name] = [Input(name, f"train triples of {name}", load, len(group))]
    labels = "labels" if graph.entity_labels is not None else "names"
    return Found(
        inputs, f"{graph.name} train {graph.train_id}", f"train triples by {labels}",
        train_id=graph.train_id,
    )  # fmt: skip


class _Words:
    """What to call entities and relations, and in which order triples stand."""

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
    """Names as words: what tokenizers have no use for becomes a space."""
    separators = str.maketrans("_/.", "   ")
    return [" ".join(name.translate(separators).split()) or name for name in names]
