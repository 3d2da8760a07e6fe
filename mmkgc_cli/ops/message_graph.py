"""The edges of an R-GCN's messages, sorted by receiver and by sender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class MessageGraph:
    """Edges in compressed rows and their transpose; all int64 except the norms.

    Attributes:
        ptr: ``[E + 1]`` start of the edges into each entity.
        source: ``[edges]`` the sender of each edge.
        relation: ``[edges]``.
        norm: ``[edges]`` factor of an edge, 1 / |N_i^r| or 1.
        back_ptr, back_target, back_relation, back_norm: the same edges sorted by sender, with the
            start of the edges out of each entity, and the receiver of each edge.
        relations: number of relation ids, including inverse and self relations.
    """

    ptr: Tensor
    source: Tensor
    relation: Tensor
    norm: Tensor
    back_ptr: Tensor
    back_target: Tensor
    back_relation: Tensor
    back_norm: Tensor
    relations: int

    @classmethod
    def from_triples(
        cls,
        triples: Tensor,
        entities: int,
        relations: int,
        *,
        inverse: bool = True,
        normalize: bool = True,
        self_relation: bool = False,
        dtype: torch.dtype = torch.float32,
    ) -> MessageGraph:
        """Builds the graph of `triples` ``[n, 3]`` (head, relation, tail).

        A tail receives from the head under r and, with `inverse`, a head from the tail under
        r + R. N_i^r is a set (Schlichtkrull et al. 2018, eq. 2): repeated triples count once.

        Args:
            triples: int64; only train triples, since others would leak the answers.
            entities: E.
            relations: R.
            inverse: add the inverse relations R..2R-1.
            normalize: use the norm 1 / |N_i^r| of the receiver; otherwise every norm is 1, as in
                MACO's released code.
            self_relation: add a last relation with an edge from each entity to itself, as in
                MACO's released code.
            dtype: of the norms.

        Raises:
            ValueError: when an id of a triple is out of range.
        """
        bounds = torch.tensor([entities, relations, entities], device=triples.device)
        if bool(((triples < 0) | (triples >= bounds)).any()):
            raise ValueError(
                f"triples contain ids outside 0..{entities - 1} (entities) or "
                f"0..{relations - 1} (relations)"
            )
        head, relation, tail = triples.long().unbind(1)
        target, source = tail, head
        total = relations
        if inverse:
            target, source = torch.cat([target, head]), torch.cat([source, tail])
            relation = torch.cat([relation, relation + relations])
            total += relations
        if self_relation:
            loops = torch.arange(entities, device=triples.device)
            target, source = torch.cat([target, loops]), torch.cat([source, loops])
            relation = torch.cat([relation, torch.full_like(loops, total)])
            total += 1
        pairs, pair_of = torch.unique(target * total + relation, return_inverse=True)
        edge = torch.unique(pair_of * entities + source)  # ascending, so by target and relation
        pair_of, source = edge // max(entities, 1), edge % max(entities, 1)
        target, relation = pairs[pair_of] // max(total, 1), pairs[pair_of] % max(total, 1)
        neighbours = torch.bincount(pair_of, minlength=len(pairs))[pair_of]
        norm = (
            neighbours.to(dtype).reciprocal() if normalize else torch.ones_like(edge, dtype=dtype)
        )
        back = source.argsort(stable=True)

        def starts(sorted_entities: Tensor) -> Tensor:
            counts = torch.bincount(sorted_entities, minlength=entities)
            return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

        return cls(
            starts(target), source, relation, norm,
            starts(source), target[back], relation[back], norm[back], total,
        )  # fmt: skip

    @property
    def entities(self) -> int:
        """The number of entities."""
        return self.ptr.numel() - 1

    @property
    def edges(self) -> int:
        """The number of edges."""
        return self.source.numel()

    def map(self, function: Callable[[Tensor], Tensor]) -> MessageGraph:
        """The graph with `function` applied to each tensor, such as a move to a device."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = function(value)
        return MessageGraph(**values)

    def edges_into(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Positions of the edges into `rows` ``[n]`` (all when None), and the row of each edge."""
        start = self.ptr[:-1] if rows is None else self.ptr[rows]
        count = (self.ptr[1:] - self.ptr[:-1]) if rows is None else self.ptr[rows + 1] - start
        row = torch.repeat_interleave(
            torch.arange(count.numel(), device=count.device), count, output_size=int(count.sum())
        )
        within = torch.arange(row.numel(), device=row.device) - (count.cumsum(0) - count)[row]
        return start[row] + within, row

    def with_neighbours(self, rows: Tensor) -> Tensor:
        """`rows` and the entities with edges into them, ascending."""
        needed = torch.zeros(self.entities, dtype=torch.bool, device=rows.device)
        needed[rows] = True
        needed[self.source[self.edges_into(rows)[0]]] = True
        return needed.nonzero().flatten()

    @cached_property
    def by_relation(self) -> tuple[Tensor, Tensor, list[int]]:
        """Edge positions sorted by relation and receiver, their receivers, and relation starts."""
        order = self.relation.argsort(stable=True)
        counts = torch.bincount(self.relation, minlength=self.relations)
        starts = [0, *counts.cumsum(0).tolist()]
        return order, self.edges_into(None)[1][order], starts
