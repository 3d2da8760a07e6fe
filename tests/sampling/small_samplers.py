"""One tiny sampler for each form in which negatives may be drawn."""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor, nn

from mmkgc_cli.ops import SideChoice
from mmkgc_cli.sampling.contract import (
    Drawn,
    Negatives,
    Sampler,
    SamplerConfig,
    SamplingTask,
    Selections,
    Vectors,
    Views,
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

    def usable(self, positives: Tensor) -> Tensor:
        shape = len(positives), self.task.negatives
        return torch.rand(shape, generator=self.generator("usable")) < 0.8


class Plain(Drawing):
    def draw(self, positives: Tensor, scorer: Scorer) -> Drawn:
        drawn = self.entities(len(positives), self.task.negatives)
        return Negatives.of(positives, drawn, self.sides(positives), self.usable(positives))


class Soft(Drawing):
    """Learns how much of each entity of a pool goes into a negative."""

    def __init__(self, config: SamplerConfig, task: SamplingTask, scorer: Scorer) -> None:
        super().__init__(config, task, scorer)
        rng = self.generator("initial values")
        self.taste = nn.Parameter(torch.randn(task.n_entities, generator=rng))

    def draw(self, positives: Tensor, scorer: Scorer) -> Drawn:
        pool = self.entities(6)
        noise = torch.rand(len(positives), self.task.negatives, 6, generator=self.generator())
        weights = (self.taste[pool] + noise).softmax(-1)
        return Selections(weights, pool, self.sides(positives), self.usable(positives))


class ByView(Drawing):
    """Corrupts the last view alone."""

    def draw(self, positives: Tensor, scorer: Scorer) -> Drawn:
        side, n = self.sides(positives), self.task.negatives
        query = scorer.query(positives[:1, 0], positives[:1, 1], Side.tail)
        views = len(candidate_blocks(scorer, query.shape[1]))
        own = torch.where(side == 1, positives[:, :1], positives[:, 2:])
        entities = torch.stack([own] * views, -1)
        entities[..., -1] = self.entities(len(positives), n)
        return Views(entities, side)


class Fakes(Drawing):
    """Makes candidate rows of the true answers' rows, by a linear map that it learns."""

    def __init__(self, config: SamplerConfig, task: SamplingTask, scorer: Scorer) -> None:
        super().__init__(config, task, scorer)
        width = scorer.candidates(torch.zeros(1, dtype=torch.int64)).shape[1]
        rng = self.generator("initial values")
        self.map = nn.Parameter(torch.randn(width, width, generator=rng) / width**0.5)

    def draw(self, positives: Tensor, scorer: Scorer) -> Drawn:
        side = self.sides(positives)
        own = torch.where(side == 1, positives[:, :1], positives[:, 2:])
        rows = scorer.candidates(own.flatten()).view(*own.shape, -1)
        return Vectors(rows @ self.map, side, self.usable(positives))


FORMS = {"ids": Plain, "selections": Soft, "views": ByView, "vectors": Fakes}


def task_of(
    triples: Tensor, n: int, r: int, negatives: int, choice: SideChoice = SideChoice.per_negative
) -> SamplingTask:
    return SamplingTask(triples, n, r, negatives, "bernoulli", choice, 0)
