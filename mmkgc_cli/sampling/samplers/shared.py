"""`shared`: a chunk of positives shares its negatives, so that fewer rows are met in a step."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.errors import DataError
from mmkgc_cli.ops import KnownAnswers, SideChoice, filtered_negatives
from mmkgc_cli.sampling.contract import Pools, Sampler, SamplerConfig, SamplingTask
from mmkgc_cli.sampling.known_triples import head_shares, known_answers
from mmkgc_cli.scoring.contract import Scorer


class SharedConfig(SamplerConfig):
    """Hyper-parameters of `shared`."""

    chunk: int = Field(64, ge=1, le=10**7, description="positives that share their negatives")


class SharedNegatives(Sampler):
    """Draws N entities for each chunk of positives, to stand on one side of all of them.

    The side is the head with the mean of the probabilities that `filtered` would have, or chunks
    take turns. Nothing is drawn again: for positives that a drawn entity would make a train triple
    of, the positive's own answer included, it is masked. The negatives of one positive are spread
    as by `filtered` with mode ``uniform``, a few of them unusable; but positives of a chunk share
    them, so gradients vary more.
    """

    Config = SharedConfig
    citation: ClassVar[str] = (
        "Da Zheng, Xiang Song, Chao Ma et al. DGL-KE: Training knowledge graph embeddings at "
        "scale. SIGIR, 2020."
    )

    def __init__(self, config: SharedConfig, task: SamplingTask, scorer: Scorer) -> None:
        """Indexes the train triples.

        Raises:
            DataError: when sides are to be drawn in a way that a shared pool does not have.
        """
        super().__init__(config, task, scorer)
        if task.choice is SideChoice.per_positive:
            raise DataError(
                "training.negative_side: the sampler 'shared' draws a side for each chunk, not per "
                "positive; leave the setting out, or take alternating"
            )
        self.chunk = config.chunk
        tails, heads = known_answers(task)
        self._head_share = head_shares(task, tails, heads)
        # All (side, relation, known entity, answer) as numbers, ascending.
        self._true = torch.cat([self._numbers(tails, 0), self._numbers(heads, 1)])
        none = torch.empty(0, dtype=torch.int64, device=task.triples.device)
        self._nothing_known = KnownAnswers(none, none.new_zeros(1), none)

    def _numbers(self, of: KnownAnswers, side: int) -> Tensor:
        keys = of.keys + side * self.task.n_relations * self.task.n_entities
        return keys.repeat_interleave(of.ptr.diff()) * self.task.n_entities + of.answers

    def draw(self, positives: Tensor, scorer: Scorer) -> Pools:
        """Pools for chunks of `positives` [B, 3], in their order."""
        task, batch = self.task, len(positives)
        chunks = -(-batch // self.chunk)
        which = torch.arange(chunks, device=positives.device)
        # The op draws for chunks as it does for positives: chunk k has relation k.
        entities, side, _, _ = filtered_negatives(
            torch.stack([torch.zeros_like(which), which, torch.zeros_like(which)], 1),
            self._shares_of_chunks(positives, which),
            self._nothing_known,
            self._nothing_known,
            entities=task.n_entities,
            n=task.negatives,
            choice=SideChoice.per_positive,
            rounds=1,
            with_positive=False,
            seed=task.seed,
            step=self.step,
        )
        # A pool has no order; ascending, its entities are looked up faster.
        entities = entities.sort(1).values
        of_chunk = side[:, 0] if task.negatives else side.new_zeros(chunks)
        chunk_of = torch.arange(batch, device=positives.device) // self.chunk
        usable = ~self._is_true(positives, entities[chunk_of], of_chunk[chunk_of])
        return Pools(entities, of_chunk, usable, self.chunk)

    def _shares_of_chunks(self, positives: Tensor, which: Tensor) -> Tensor:
        """Probability [K] that the pool of chunk `which` [K] stands on the head's side."""
        if self.task.choice is SideChoice.alternating:
            return ((which + self.step) % 2).to(self._head_share.dtype)
        shares = self._head_share[positives[:, 1]]
        padding = len(which) * self.chunk - len(shares)
        sums = torch.nn.functional.pad(shares, (0, padding)).view(-1, self.chunk).sum(1)
        sizes = (len(shares) - which * self.chunk).clamp_max(self.chunk)
        return sums / sizes

    def _is_true(self, positives: Tensor, entities: Tensor, side: Tensor) -> Tensor:
        """Whether `entities` [B, N] on `side` [B] make train triples of `positives`."""
        n = self.task.n_entities
        heads, relations, tails = positives.unbind(1)
        known = torch.where(side == 1, tails, heads)
        keys = (side * self.task.n_relations + relations) * n + known
        numbers = keys[:, None] * n + entities
        if not len(self._true):
            return torch.zeros_like(numbers, dtype=torch.bool)
        at = torch.searchsorted(self._true, numbers).clamp_max_(len(self._true) - 1)
        return self._true[at] == numbers


SAMPLER = SharedNegatives
