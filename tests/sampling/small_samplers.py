"""One small sampler for each form of negatives."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmkgc_cli.ops import SideChoice
from mmkgc_cli.sampling.contract import (
    BlockwiseNegatives,
    Candidates,
    EmbeddedNegatives,
    NegativeBatch,
    Sampler,
    SamplerConfig,
    SamplingTask,
    SoftNegatives,
    candidate_blocks,
)
from mmkgc_cli.scoring import Scorer, Side


class Drawing(Sampler):
    citation: ClassVar[str] = "a test"

    def entities(self, *shape: int) -> Tensor:
        return torch.randint(self.task.n_entities, shape, generator=self.generator("entities"))

    def sides(self, positives: Tensor) -> Tensor:
        shape = len(positives), self.task.negatives
        return torch.randint(2, shape, generator=self.generator("sides"), dtype=torch.int8)

    def mask(self, positives: Tensor) -> Tensor:
        shape = len(positives), self.task.negatives
        return torch.rand(shape, generator=self.generator("mask")) < 0.8


class Plain(Drawing):
    def draw(self, positives: Tensor, scorer: Scorer) -> NegativeBatch:
        ids = self.entities(len(positives), self.task.negatives)
        return Candidates.from_negatives(
            positives, ids, self.sides(positives), self.mask(positives)
        )


class Soft(Drawing):
    """Mixes the entities of a pool with trained weights."""

    def __init__(self, config: SamplerConfig, task: SamplingTask, scorer: Scorer) -> None:
        super().__init__(config, task, scorer)
        rng = self.generator("initial values")
        self.taste = nn.Parameter(torch.randn(task.n_entities, generator=rng))

    def draw(self, positives: Tensor, scorer: Scorer) -> NegativeBatch:
        pool = self.entities(6)
        noise = torch.rand(len(positives), self.task.negatives, 6, generator=self.generator())
        weights = (self.taste[pool] + noise).softmax(-1)
        return SoftNegatives(weights, pool, self.sides(positives), self.mask(positives))


class Blockwise(Drawing):
    """Corrupts the last block only."""

    def draw(self, positives: Tensor, scorer: Scorer) -> NegativeBatch:
        side, n = self.sides(positives), self.task.negatives
        query = scorer.query(positives[:1, 0], positives[:1, 1], Side.tail)
        assert isinstance(query, Tensor)
        blocks = len(candidate_blocks(scorer, query.shape[1]))
        answers = torch.where(side == 1, positives[:, :1], positives[:, 2:])
        entities = torch.stack([answers] * blocks, -1)
        entities[..., -1] = self.entities(len(positives), n)
        return BlockwiseNegatives(entities, side)


class Embedded(Drawing):
    """Maps the rows of true answers to candidate rows, by a trained linear map."""

    def __init__(self, config: SamplerConfig, task: SamplingTask, scorer: Scorer) -> None:
        super().__init__(config, task, scorer)
        row = scorer.candidates(torch.zeros(1, dtype=torch.int64))
        assert isinstance(row, Tensor)
        width = row.shape[1]
        rng = self.generator("initial values")
        self.map = nn.Parameter(torch.randn(width, width, generator=rng) / width**0.5)

    def draw(self, positives: Tensor, scorer: Scorer) -> NegativeBatch:
        side = self.sides(positives)
        answers = torch.where(side == 1, positives[:, :1], positives[:, 2:])
        rows = scorer.candidates(answers.flatten())
        assert isinstance(rows, Tensor)
        rows = rows.view(*answers.shape, -1)
        return EmbeddedNegatives(rows @ self.map, side, self.mask(positives))


FORMS = {"ids": Plain, "soft": Soft, "blockwise": Blockwise, "embedded": Embedded}


def task_of(
    triples: Tensor, n: int, r: int, negatives: int, choice: SideChoice = SideChoice.per_negative
) -> SamplingTask:
    return SamplingTask(triples, n, r, negatives, "bernoulli", choice, 0)
