"""Input of a completion strategy: the train triples as edges, and the observed vectors."""

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
class SparseMatrix:
    """A sparse matrix ``[rows, columns]`` in CSR format; `ptr` and `column` are int64."""

    ptr: Tensor
    column: Tensor
    weight: Tensor

    @classmethod
    def from_entries(
        cls, row: NDArray[np.int64], column: NDArray[np.int64], weight: NDArray[np.float64],
        rows: int,
    ) -> SparseMatrix:  # fmt: skip
        """Builds a matrix from entries in any order; entries at the same position are added."""
        order = np.lexsort((column, row))
        ptr = np.concatenate([[0], np.cumsum(np.bincount(row, minlength=rows))])
        return cls(*(torch.from_numpy(array) for array in (ptr, column[order], weight[order])))

    def __matmul__(self, matrix: Tensor) -> Tensor:
        """Product with a dense matrix ``[columns, d]``, in the dtype of that matrix."""
        if not len(self.column):
            return matrix.new_zeros(len(self.ptr) - 1, matrix.shape[1])
        return functional.embedding_bag(
            self.column, matrix, self.ptr, mode="sum", include_last_offset=True,
            per_sample_weights=self.weight.to(matrix.dtype),
        )  # fmt: skip

    def rows(self, indices: Tensor) -> SparseMatrix:
        """Selects rows by `indices`, int64 ``[k]``, in that order."""
        start, length = self.ptr[indices], self.ptr[indices + 1] - self.ptr[indices]
        ptr = torch.cat([length.new_zeros(1), length.cumsum(0)])
        entries = torch.arange(int(ptr[-1])) - torch.repeat_interleave(ptr[:-1] - start, length)
        return SparseMatrix(ptr, self.column[entries], self.weight[entries])


@dataclass(frozen=True, eq=False)
class CompletionProblem:
    """Observed vectors and edges, with entities and relations sorted by name.

    Sorting makes results bit-identical for any assignment of ids. Each train triple (h, r, t) gives
    two edges: from source h to target t with relation r, and from source t to target h with
    relation r + R. Repeated triples count once. Triples with h = t are left out, so that no vector
    is computed from itself.

    Attributes:
        names: E entity ids, sorted.
        modality: modality of the vectors.
        vectors: float32 ``[E, d]``; rows that are not observed are never read.
        observed: bool ``[E]``.
        target, source, relation: int64 ``[edges]``.
        relations: number of relations of edges, 2 R.
        seed: random seed of strategies that sample and of held-out splits.
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
    def from_graph(
        cls, graph: Graph, modality: str, vectors: Tensor, observed: Mask, seed: int
    ) -> CompletionProblem:  # fmt: skip
        """Builds the problem from `vectors` ``[E, d]`` and the mask `observed`, in graph order.

        Only train triples are used. `graph.sorted_entities.ranks` maps rows of a result back to
        graph order.
        """
        order = torch.from_numpy(graph.sorted_entities.order)
        entity_rank, relation_rank = graph.sorted_entities.ranks, graph.sorted_relations.ranks
        train = graph.train
        triples = np.stack(
            [entity_rank[train[:, 0]], relation_rank[train[:, 1]], entity_rank[train[:, 2]]], axis=1
        ).astype(np.int64)
        triples = np.unique(triples[triples[:, 0] != triples[:, 2]], axis=0)
        head, relation, tail = triples.T
        n_relations = len(graph.relations)
        return cls(
            names=[graph.entities[i] for i in order.tolist()],
            modality=modality,
            vectors=vectors[order],
            observed=torch.from_numpy(observed)[order],
            target=np.concatenate([tail, head]),
            source=np.concatenate([head, tail]),
            relation=np.concatenate([relation, relation + n_relations]),
            relations=2 * n_relations,
            seed=seed,
        )

    def with_observed(self, observed: Tensor) -> CompletionProblem:
        """Copies the problem with another `observed`, bool ``[E]``; keeps cached `contexts`."""
        other = CompletionProblem(
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
        head, relation, tail = self.source[:n], self.relation[:n], self.target[:n]
        return torch.from_numpy(np.stack([head, relation, tail], axis=1))

    @property
    def observed_ids(self) -> Tensor:
        """The observed entities, int64, in the order of their names."""
        return self.observed.nonzero()[:, 0]

    @functools.cached_property
    def vector_sum(self) -> Tensor:
        """Sum of the observed vectors, float64 ``[d]``."""
        return self.vectors[self.observed].sum(dim=0, dtype=torch.float64)

    @functools.cached_property
    def mean(self) -> Tensor:
        """Mean of the observed vectors, float64 ``[d]``."""
        return self.vector_sum / max(1, int(self.observed.sum()))

    @functools.cached_property
    def centred(self) -> Tensor:
        """Observed vectors minus their mean, float32 ``[E, d]``; zero for other entities."""
        differences = (self.vectors - self.mean).float()
        return torch.where(self.observed[:, None], differences, 0.0)

    @functools.cached_property
    def contexts(self) -> tuple[NDArray[np.int64], int]:
        """Returns the context number of each edge, and the number of contexts.

        A context is a pair of a source and a relation. Two entities share a context if they are
        linked to the same entity by the same relation in the same direction.
        """
        keys = self.source * self.relations + self.relation
        distinct, context = np.unique(keys, return_inverse=True)
        return context.astype(np.int64), len(distinct)

    def partition(self, purpose: str, parts: int) -> Tensor:
        """Splits observed entities at random; returns the part of each, 0 to `parts` - 1, int64.

        Sizes differ by at most one. Parts depend on the names of the observed entities, `purpose`
        and the seed only.
        """
        entities = self.observed_ids.tolist()
        keys = digests(purpose, self.seed, [self.modality], [self.names[i] for i in entities])
        order = sorted(range(len(entities)), key=keys.__getitem__)
        result = torch.empty(len(entities), dtype=torch.int64)
        result[torch.tensor(order, dtype=torch.int64)] = torch.arange(len(entities)) % parts
        return result
