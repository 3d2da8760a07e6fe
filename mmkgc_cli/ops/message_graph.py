"""The edges along which an R-GCN passes messages, sorted by receiver and by sender."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from functools import cached_property
from typing import Any

import torch
from torch import Tensor


@dataclass(frozen=True)
class MessageGraph:
    """Edges in compressed rows, and their transpose; all int64 but the norms.

    Attributes:
        ptr: ``[E + 1]`` where the edges into each entity start.
        source: ``[edges]`` the entity that an edge comes from.
        relation: ``[edges]``.
        norm: ``[edges]`` factor of an edge, 1 / |N_i^r| or 1.
        back_ptr, back_target, back_relation, back_norm: the same edges by the entity that they
            leave: where those start, and at the other end the receiver.
        relations: how many relation ids there are, inverse and self relations included.
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
        """Makes the graph of `triples` ``[n, 3]`` (head, relation, tail).

        A tail receives from the head under r and, with `inverse`, a head from the tail under
        r + R. N_i^r is a set (Schlichtkrull et al. 2018, eq. 2): repeated triples count once.

        Args:
            triples: int64; those of the train split, or the graph would leak what is asked.
            entities: E.
            relations: R.
            inverse: adds the inverse relations R..2R-1.
            normalize: 1 / |N_i^r| of the receiver; otherwise every edge counts 1, as in MACO's
                released code.
            self_relation: adds an edge of a last relation from each entity to itself (also there).
            dtype: of the norms.

        Raises:
            ValueError: when a triple holds an id out of range.
        """
        bounds = torch.tensor([entities, relations, entities], device=triples.device)
        if bool(((triples < 0) | (triples >= bounds)).any()):
            raise ValueError(f"triples hold ids outside 0..{entities - 1} or 0..{relations - 1}")
        head, relation, tail = triples.long().unbind(1)
        target, source = tail, head
        total = relations
        if inverse:
            target, source = torch.cat([target, head]), torch.cat([source, tail])
            relation = torch.cat([relation, relation + relations])
            total += relations
        if self_relation:
            every = torch.arange(entities, device=triples.device)
            target, source = torch.cat([target, every]), torch.cat([source, every])
            relation = torch.cat([relation, torch.full_like(every, total)])
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

        def starts(of: Tensor) -> Tensor:
            counts = torch.bincount(of, minlength=entities)
            return torch.cat([counts.new_zeros(1), counts.cumsum(0)])

        return cls(
            starts(target), source, relation, norm,
            starts(source), target[back], relation[back], norm[back], total,
        )  # fmt: skip

    @property
    def entities(self) -> int:
        """E."""
        return self.ptr.numel() - 1

    @property
    def edges(self) -> int:
        """How many."""
        return self.source.numel()

    def map(self, function: Callable[[Tensor], Tensor]) -> MessageGraph:
        """With each tensor replaced, as `torch.nn.Module` replaces parameters to move them."""
        values: dict[str, Any] = {field.name: getattr(self, field.name) for field in fields(self)}
        for name, value in values.items():
            if isinstance(value, Tensor):
                values[name] = function(value)
        return MessageGraph(**values)

    def edges_into(self, rows: Tensor | None) -> tuple[Tensor, Tensor]:
        """Positions of the edges into `rows` ``[n]`` (all when None), and the row of each."""
        start = self.ptr[:-1] if rows is None else self.ptr[rows]
        count = (self.ptr[1:] - self.ptr[:-1]) if rows is None else self.ptr[rows + 1] - start
        row = torch.repeat_interleave(
            torch.arange(count.numel(), device=count.device), count, output_size=int(count.sum())
        )
        within = torch.arange(row.numel(), device=row.device) - (count.cumsum(0) - count)[row]
        return start[row] + within, row

    def with_neighbours(self, rows: Tensor) -> Tensor:
        """`rows` and the entities that they receive from, ascending: what they are made of."""
        needed = torch.zeros(self.entities, dtype=torch.bool, device=rows.device)
        needed[rows] = True
        needed[self.source[self.edges_into(rows)[0]]] = True
        return needed.nonzero().flatten()

    @cached_property
    def by_relation(self) -> tuple[Tensor, Tensor, list[int]]:
        """Edge positions by relation and receiver, those receivers, and where relations start."""
        order = self.relation.argsort(stable=True)
        counts = torch.bincount(self.relation, minlength=self.relations)
        starts = [0, *counts.cumsum(0).tolist()]
        return order, self.edges_into(None)[1][order], starts
