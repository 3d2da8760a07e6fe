"""What a strategy gets to see: the train triples as edges, and the vectors that are observed."""

from __future__ import annotations

import functools
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional

from mmkgc_cli.features.format import Mask
from mmkgc_cli.features.seeded_random import digests
from mmkgc_cli.kg.graph import Graph


@dataclass(frozen=True, eq=False)
class Sparse:
    """A sparse matrix ``[rows, columns]`` in compressed rows: `ptr` and `column` int64."""

    ptr: Tensor
    column: Tensor
    weight: Tensor

    @classmethod
    def of(
        cls, row: NDArray[np.int64], column: NDArray[np.int64], weight: NDArray[np.float64],
        rows: int,
    ) -> Sparse:  # fmt: skip
        """The matrix of entries in any order; equal ones add up."""
        order = np.lexsort((column, row))
        ptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))])
        return cls(*(torch.from_numpy(part) for part in (ptr, column[order], weight[order])))

    def __matmul__(self, table: Tensor) -> Tensor:
        """The product with a dense ``[columns, d]``, in its type."""
        if not len(self.column):
            return table.new_zeros(len(self.ptr) - 1, table.shape[1])
        return functional.embedding_bag(
            self.column, table, self.ptr, mode="sum", include_last_offset=True,
            per_sample_weights=self.weight.to(table.dtype),
        )  # fmt: skip

    def sums(self) -> Tensor:
        """What the entries of each row add up to, float64 ``[rows]``."""
        return (self @ torch.ones(self._columns, 1, dtype=torch.float64))[:, 0]

    def rows(self, wanted: Tensor) -> Sparse:
        """Some of the rows, int64 ``[k]``, in that order."""
        start, length = self.ptr[wanted], self.ptr[wanted + 1] - self.ptr[wanted]
        ptr = torch.cat([length.new_zeros(1), length.cumsum(0)])
        place = torch.arange(int(ptr[-1])) - torch.repeat_interleave(ptr[:-1] - start, length)
        return Sparse(ptr, self.column[place], self.weight[place])

    @property
    def _columns(self) -> int:
        return int(self.column.max()) + 1 if len(self.column) else 0


@dataclass(frozen=True, eq=False)
class Problem:
    """Vectors to be completed, with entities and edges in the order of their names.

    So no result depends, in any bit, on how ids were dealt out. An edge stands for a train triple
    seen from one end: `target` is an entity, `source` the one at the other end, `relation` r where
    the target is the tail and r + R where it is the head. Repeated triples count once, and those
    from an entity to itself not at all: nobody tells an entity its own vector.

    Attributes:
        names: E entity ids, sorted.
        modality: what the vectors are of.
        vectors: float32 ``[E, d]``; what stands where nothing is observed is never read.
        observed: bool ``[E]``.
        target, source, relation: int64 ``[edges]``.
        relations: 2 R.
        seed: of strategies that draw, and of what is held out.
    """

    names: Sequence[str]
    modality: str
    vectors: Tensor
    observed: Tensor
    target: NDArray[np.int64]
    source: NDArray[np.int64]
    relation: NDArray[np.int64]
    relations: int
    seed: int

    @classmethod
    def of(
        cls, graph: Graph, modality: str, vectors: Tensor, observed: Mask, seed: int
    ) -> Problem:  # fmt: skip
        """The problem of a graph whose entities have `vectors` ``[E, d]`` where `observed`.

        Only train triples take part. Rows of a result go back into the graph's order by
        `graph.sorted_entities.ranks`.
        """
        order = torch.from_numpy(graph.sorted_entities.order)
        entity, relation = graph.sorted_entities.ranks, graph.sorted_relations.ranks
        triples = graph.train
        rows = np.stack(
            [entity[triples[:, 0]], relation[triples[:, 1]], entity[triples[:, 2]]], axis=1
        ).astype(np.int64)
        rows = np.unique(rows[rows[:, 0] != rows[:, 2]], axis=0)
        head, link, tail = rows.T
        total = len(graph.relations)
        return cls(
            names=[graph.entities[i] for i in order.tolist()],
            modality=modality,
            vectors=vectors[order],
            observed=torch.from_numpy(observed)[order],
            target=np.concatenate([tail, head]),
            source=np.concatenate([head, tail]),
            relation=np.concatenate([link, link + total]),
            relations=2 * total,
            seed=seed,
        )

    def seeing(self, observed: Tensor) -> Problem:
        """The same with other vectors observed, bool ``[E]``; what follows from edges is kept."""
        other = Problem(
            self.names, self.modality, self.vectors, observed, self.target, self.source,
            self.relation, self.relations, self.seed,
        )  # fmt: skip
        if "contexts" in self.__dict__:
            other.__dict__["contexts"] = self.contexts
        return other

    @property
    def triples(self) -> Tensor:
        """The distinct train triples (head, relation, tail), int64 ``[n, 3]``."""
        n = len(self.target) // 2
        head, link, tail = self.source[:n], self.relation[:n], self.target[:n]
        return torch.from_numpy(np.stack([head, link, tail], axis=1))

    @property
    def known(self) -> Tensor:
        """The observed entities, int64, in the order of their names."""
        return self.observed.nonzero()[:, 0]

    @functools.cached_property
    def total(self) -> Tensor:
        """Sum of the observed vectors, float64 ``[d]``."""
        return self.vectors[self.observed].sum(dim=0, dtype=torch.float64)

    @functools.cached_property
    def mean(self) -> Tensor:
        """Mean of the observed vectors, float64 ``[d]``."""
        return self.total / max(1, int(self.observed.sum()))

    @functools.cached_property
    def centred(self) -> Tensor:
        """Observed vectors less their mean, and zero elsewhere, float32 ``[E, d]``."""
        rows = (self.vectors - self.mean).float()
        return torch.where(self.observed[:, None], rows, 0.0)

    @functools.cached_property
    def contexts(self) -> tuple[NDArray[np.int64], int]:
        """A number for each edge, the same where relation and source are, and how many there are.

        Entities with one context in common stand in one relation, in one direction, to one other.
        """
        keys = self.source * self.relations + self.relation
        distinct, context = np.unique(keys, return_inverse=True)
        return context.astype(np.int64), len(distinct)

    def parts(self, purpose: str, parts: int) -> Tensor:
        """A part 0..parts - 1 for each observed entity, int64, all as large, drawn by name.

        Only the names of the observed and the seed decide.
        """
        known = self.known.tolist()
        found = digests(purpose, self.seed, [self.modality], [self.names[i] for i in known])
        order = sorted(range(len(known)), key=found.__getitem__)
        result = torch.empty(len(known), dtype=torch.int64)
        result[torch.tensor(order, dtype=torch.int64)] = torch.arange(len(known)) % parts
        return result
