"""Negatives: corrupted triples, drawn and filtered on the device by `ops.filtered_negatives`."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from mmkgc_cli.ops import KnownAnswers, SideChoice, filtered_negatives

# Rounds in which draws that hit a true triple are drawn again; what still hits is masked out.
ROUNDS = 4


@dataclass(frozen=True)
class Negatives:
    """Corruptions of B positives: each replaces the head or the tail of its positive.

    `entities` [B, N] int64 stand on `side` [B, N] int8 (values of `Side`); `usable` [B, N] is False
    where a true triple could not be avoided. `order` [B * N] int64 sorts the entities by id.
    """

    entities: Tensor
    side: Tensor
    usable: Tensor
    order: Tensor


class FilteredNegatives:
    """Draws negatives that are not train triples.

    A side is drawn for each negative or for all of a positive, or tails and heads take turns: the
    head with probability tph / (tph + hpt) of its relation under ``bernoulli`` (Wang et al. 2014,
    section 3.2), one half under ``uniform``. Draws that hit a train triple are repeated a fixed
    number of rounds, so nothing waits for the device.

    `step` counts the batches drawn so far, on the device of the triples, so that a captured CUDA
    graph counts them too; with the seed it is all the state there is.
    """

    def __init__(
        self,
        triples: Tensor,
        n_entities: int,
        n_relations: int,
        mode: str,
        choice: SideChoice,
        seed: int,
    ) -> None:
        """Indexes the train `triples` [n, 3], on whose device draws are made."""
        self.n_entities = n_entities
        self.n_relations = n_relations
        self.choice = choice
        self.seed = seed
        self._counter = torch.zeros(1, dtype=torch.int64, device=triples.device)
        heads, relations, tails = triples.unbind(1)
        self._tails = KnownAnswers.of(relations * n_entities + heads, tails, n_entities)
        self._heads = KnownAnswers.of(relations * n_entities + tails, heads, n_entities)
        self._head_share = self._head_shares(mode)

    @property
    def step(self) -> int:
        """Batches drawn so far; on a GPU, to ask is to wait for it."""
        return int(self._counter)

    @step.setter
    def step(self, step: int) -> None:
        self._counter.fill_(step)

    def _head_shares(self, mode: str) -> Tensor:
        """Probability [R] that a negative replaces the head."""
        if mode == "uniform":
            return torch.full((self.n_relations,), 0.5, device=self._tails.keys.device)

        def known_entities(of: KnownAnswers) -> Tensor:
            return torch.bincount(of.keys // self.n_entities, minlength=self.n_relations)

        # tph / (tph + hpt) with tph = n / #heads and hpt = n / #tails.
        n_heads, n_tails = known_entities(self._tails), known_entities(self._heads)
        return torch.nan_to_num(n_tails / (n_heads + n_tails), nan=0.5)

    def sample(
        self, positives: Tensor, per_positive: int, with_positive: bool = False
    ) -> Negatives:
        """Corrupts `positives` [B, 3], `per_positive` times each.

        With `with_positive` the positive's own tail is the first of N = 1 + `per_positive` columns.
        """
        drawn = filtered_negatives(
            positives,
            self._head_share,
            self._tails,
            self._heads,
            self.n_entities,
            per_positive,
            self.choice,
            ROUNDS,
            with_positive,
            self.seed,
            0,
            self._counter,
        )
        self._counter += 1
        return Negatives(*drawn)
