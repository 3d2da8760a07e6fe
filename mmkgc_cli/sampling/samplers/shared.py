"""Shared sampling (Zheng et al., 2020): each chunk of positives shares its negatives."""

from __future__ import annotations

from typing import ClassVar

import torch
from pydantic import Field
from torch import Tensor

from mmkgc_cli.errors import DataError
from mmkgc_cli.ops import KnownAnswers, SideChoice, filtered_negatives
from mmkgc_cli.sampling.contract import Sampler, SamplerConfig, SamplingTask, SharedNegatives
from mmkgc_cli.sampling.known_triples import head_probability, known_answers
from mmkgc_cli.scoring.contract import Scorer


class SharedConfig(SamplerConfig):
    """Hyper-parameters of `shared`."""

    chunk: int = Field(
        64, ge=1, le=10**7, description="number of positives that share their negatives"
    )


class SharedSampler(Sampler):
    """Samples N entities for each chunk of positives; they replace the same side of all of them.

    The probability of the head is the mean over the chunk of the probabilities that `filtered`
    uses; or chunks alternate. No entity is replaced: where it makes a train triple of a positive,
    or is the positive's own answer, it is masked for that positive. Per positive, negatives are
    distributed as by `filtered` with mode ``uniform``, a few of them masked; since the positives
    of a chunk share them, gradients have a higher variance.
    """

    Config = SharedConfig
    citation: ClassVar[str] = (
        "Da Zheng, Xiang Song, Chao Ma et al. DGL-KE: Training knowledge graph embeddings at "
        "scale. SIGIR, 2020."
    )

    def __init__(self, config: SharedConfig, task: SamplingTask, scorer: Scorer) -> None:
        """Indexes the train triples.

        Raises:
            DataError: when the setting asks for a side per positive.
        """
        super().__init__(config, task, scorer)
        if task.choice is SideChoice.per_positive:
            raise DataError(
                "negatives.corrupted_side: the sampler 'shared' chooses a side per chunk, got "
                "per-positive",
                fix="remove the setting, or set negatives.corrupted_side=alternating",
            )
        self.chunk = config.chunk
        tails, heads = known_answers(task)
        self._head_probability = head_probability(task, tails, heads)
        # All (side, relation, known entity, answer) as numbers, ascending.
        self._true = torch.cat([self._numbers(tails, 0), self._numbers(heads, 1)])
        empty = torch.empty(0, dtype=torch.int64, device=task.triples.device)
        self._no_answers = KnownAnswers(empty, empty.new_zeros(1), empty)

    def _numbers(self, known: KnownAnswers, side: int) -> Tensor:
        keys = known.keys + side * self.task.n_relations * self.task.n_entities
        return keys.repeat_interleave(known.ptr.diff()) * self.task.n_entities + known.answers

    def draw(self, positives: Tensor, scorer: Scorer) -> SharedNegatives:
        """Negatives of the chunks of `positives` [B, 3], in their order."""
        task, batch = self.task, len(positives)
        n_chunks = -(-batch // self.chunk)
        chunks = torch.arange(n_chunks, device=positives.device)
        # The op samples for chunks as it does for positives: chunk k is relation k.
        ids, side, _, _ = filtered_negatives(
            torch.stack([torch.zeros_like(chunks), chunks, torch.zeros_like(chunks)], 1),
            self._chunk_head_probability(positives, chunks),
            self._no_answers,
            self._no_answers,
            entities=task.n_entities,
            n=task.negatives,
            choice=SideChoice.per_positive,
            rounds=1,
            with_positive=False,
            seed=task.seed,
            step=self.step,
        )
        # Their order is arbitrary; ascending ids are looked up faster.
        ids = ids.sort(1).values
        corrupted_side = side[:, 0] if task.negatives else side.new_zeros(n_chunks)
        chunk_of = torch.arange(batch, device=positives.device) // self.chunk
        mask = ~self._is_true(positives, ids[chunk_of], corrupted_side[chunk_of])
        return SharedNegatives(ids, corrupted_side, mask, self.chunk)

    def _chunk_head_probability(self, positives: Tensor, chunks: Tensor) -> Tensor:
        """Probability [K] that the negatives of each of the `chunks` [K] replace the head."""
        if self.task.choice is SideChoice.alternating:
            return ((chunks + self.step) % 2).to(self._head_probability.dtype)
        probabilities = self._head_probability[positives[:, 1]]
        padding = len(chunks) * self.chunk - len(probabilities)
        padded = torch.nn.functional.pad(probabilities, (0, padding))
        sizes = (len(probabilities) - chunks * self.chunk).clamp_max(self.chunk)
        return padded.view(-1, self.chunk).sum(1) / sizes

    def _is_true(self, positives: Tensor, ids: Tensor, corrupted_side: Tensor) -> Tensor:
        """Whether `ids` [B, N] on `corrupted_side` [B] make train triples of `positives`."""
        n = self.task.n_entities
        heads, relations, tails = positives.unbind(1)
        known = torch.where(corrupted_side == 1, tails, heads)
        keys = (corrupted_side * self.task.n_relations + relations) * n + known
        numbers = keys[:, None] * n + ids
        if not len(self._true):
            return torch.zeros_like(numbers, dtype=torch.bool)
        positions = torch.searchsorted(self._true, numbers).clamp_max_(len(self._true) - 1)
        return self._true[positions] == numbers


SAMPLER = SharedSampler
