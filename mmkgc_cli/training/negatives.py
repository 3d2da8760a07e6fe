"""Negatives: corrupted triples, drawn and filtered as tensor operations on the device."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmkgc_cli.scoring.contract import Side

# Rounds in which draws that hit a true triple are drawn again; what still hits is masked out.
ROUNDS = 4


@dataclass(frozen=True)
class Negatives:
    """Corruptions of B positives: each replaces the head or the tail of its positive.

    `entities` [B, N] int64 stand on `side` [B, N] int64 (values of `Side`); `usable` [B, N] is
    False where a true triple could not be avoided.
    """

    entities: Tensor
    side: Tensor
    usable: Tensor


class FilteredNegatives:
    """Draws negatives that are not train triples.

    Each negative picks its own side: the head with probability tph / (tph + hpt) of its relation
    under ``bernoulli`` (Wang et al. 2014, section 3.2), one half under ``uniform``. Draws that hit
    a train triple are repeated a fixed number of rounds, so nothing waits for the device.
    """

    def __init__(
        self,
        triples: Tensor,
        n_entities: int,
        n_relations: int,
        mode: str,
        generator: torch.Generator,
    ) -> None:
        """Indexes the train `triples` [n, 3]; draws come from `generator`, on its device."""
        self.n_entities = n_entities
        self.n_relations = n_relations
        self.generator = generator
        self._known = torch.unique(self._key(*triples.unbind(1)))
        self._head_share = self._head_shares(triples, mode)

    def _key(self, heads: Tensor, relations: Tensor, tails: Tensor) -> Tensor:
        return (relations * self.n_entities + heads) * self.n_entities + tails

    def _head_shares(self, triples: Tensor, mode: str) -> Tensor:
        """Probability [R] that a negative replaces the head."""
        if mode == "uniform":
            return torch.full((self.n_relations,), 0.5, device=triples.device)
        heads, relations, tails = triples.unbind(1)

        def distinct(ends: Tensor) -> Tensor:
            pairs = torch.unique(relations * self.n_entities + ends) // self.n_entities
            return torch.bincount(pairs, minlength=self.n_relations)

        # tph / (tph + hpt) with tph = n / #heads and hpt = n / #tails.
        n_heads, n_tails = distinct(heads), distinct(tails)
        return torch.nan_to_num(n_tails / (n_heads + n_tails), nan=0.5)

    def sample(self, positives: Tensor, per_positive: int) -> Negatives:
        """Corrupts `positives` [B, 3], `per_positive` times each."""
        heads, relations, tails = (column[:, None] for column in positives.unbind(1))
        shape = (len(positives), per_positive)
        chance = torch.rand(shape, generator=self.generator, device=positives.device)
        side = torch.where(chance < self._head_share[relations], Side.head, Side.tail)
        entities = self._draw(shape, positives.device)
        for _ in range(ROUNDS - 1):
            hit = self._is_known(heads, relations, tails, entities, side)
            entities = torch.where(hit, self._draw(shape, positives.device), entities)
        usable = ~self._is_known(heads, relations, tails, entities, side)
        return Negatives(entities, side, usable)

    def _draw(self, shape: tuple[int, int], device: torch.device) -> Tensor:
        return torch.randint(self.n_entities, shape, generator=self.generator, device=device)

    def _is_known(
        self, heads: Tensor, relations: Tensor, tails: Tensor, entities: Tensor, side: Tensor
    ) -> Tensor:
        corrupt_head = side == Side.head
        keys = self._key(
            torch.where(corrupt_head, entities, heads),
            relations,
            torch.where(corrupt_head, tails, entities),
        )
        at = torch.searchsorted(self._known, keys).clamp_max_(len(self._known) - 1)
        known: Tensor = self._known[at] == keys
        return known
