"""What a negative sampler provides, and the four forms in which it may draw.

A sampler is given the train triples and its settings once, and then draws for one batch of
positives after another. What it draws says what is scored in place of the positive's own candidate:

(i)   `Negatives`: other entities, by id; `Pools` where many positives share them;
(ii)  `Selections`: mixtures of the candidates of a pool, hard or soft, with gradients;
(iii) `Views`: rows whose blocks come from different entities;
(iv)  `Vectors`: any candidate rows, such as generated ones.

`training.drawn_scores` scores all of them. A plugin defines `SAMPLER`, a subclass of `Sampler`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mmkgc_cli.ops import SideChoice
from mmkgc_cli.plugins.settings import PluginSettings
from mmkgc_cli.scoring.contract import ParameterGroup, Scorer
from mmkgc_cli.sides import Side
from mmkgc_cli.state.rng import generator

# How the side that a negative replaces is drawn.
SideDraw = Literal["bernoulli", "uniform"]


class SamplerConfig(PluginSettings):
    """Hyper-parameters of a sampler; subclasses add typed fields with defaults and help."""


@dataclass(frozen=True)
class SamplingTask:
    """What every sampler is given; see `TrainingConfig` for `negatives`, `mode` and `choice`.

    `triples` [n, 3] are those of train, on the device where draws are made.
    """

    triples: Tensor
    n_entities: int
    n_relations: int
    negatives: int
    mode: SideDraw
    choice: SideChoice
    seed: int


@dataclass(frozen=True)
class Negatives:
    """Interface (i): corruptions of B positives, each with another head or another tail.

    `entities` [B, 1 + N] int64 stand on `side` [B, 1 + N] int8 (values of `Side`), the positive's
    own tail in the first column; `usable` [B, 1 + N] is False for what has no part in the loss, as
    where a true triple could not be avoided. `order` [B * (1 + N)] int64 sorts the entities by id
    and then by position; None leaves it to whoever needs it.
    """

    entities: Tensor
    side: Tensor
    usable: Tensor
    order: Tensor | None = None

    @classmethod
    def of(
        cls, positives: Tensor, entities: Tensor, side: Tensor, usable: Tensor | None = None
    ) -> Negatives:
        """Puts `entities` [B, N] on `side` [B, N], usable or not, beside `positives` [B, 3]."""
        first = torch.zeros_like(side[:, :1]).expand(len(positives), 1)
        if usable is None:
            usable = torch.ones_like(side, dtype=torch.bool)
        return cls(
            torch.cat([positives[:, 2:], entities], 1),
            torch.cat([first, side], 1),
            torch.cat([torch.ones_like(first, dtype=torch.bool), usable], 1),
        )


@dataclass(frozen=True)
class Pools:
    """Interface (i) where chunks of `chunk` positives, the last maybe smaller, share entities.

    `entities` [K, N] int64 stand on `side` [K] int8, for K chunks; `usable` is [B, N].
    """

    entities: Tensor
    side: Tensor
    usable: Tensor
    chunk: int

    def negatives(self, positives: Tensor) -> Negatives:
        """The same for each of the `positives` [B, 3]."""
        chunk_of = torch.arange(len(positives), device=positives.device) // self.chunk
        side = self.side[chunk_of, None].expand_as(self.usable)
        return Negatives.of(positives, self.entities[chunk_of], side, self.usable)


@dataclass(frozen=True)
class Selections:
    """Interface (ii): rows ``weights @ candidates(pool)``, through which gradients go both ways.

    `weights` [B, N, P] over the `pool` [P] int64, one-hot or soft; `side` [B, N] int8; `usable`
    [B, N], or None where all are.
    """

    weights: Tensor
    pool: Tensor
    side: Tensor
    usable: Tensor | None = None


@dataclass(frozen=True)
class Views:
    """Interface (iii): rows whose V blocks come from entities of their own.

    `entities` [B, N, V] int64 gives an entity for each block of the scorer's candidate rows, in the
    order of their columns; a view that stays uncorrupted keeps the positive's. `side` [B, N] int8;
    `usable` [B, N], or None where all are.
    """

    entities: Tensor
    side: Tensor
    usable: Tensor | None = None


@dataclass(frozen=True)
class Vectors:
    """Interface (iv): candidate rows `vectors` [B, N, Dc] themselves, with gradients.

    `side` [B, N] int8; `usable` [B, N], or None where all are.
    """

    vectors: Tensor
    side: Tensor
    usable: Tensor | None = None


Drawn = Negatives | Pools | Selections | Views | Vectors


class Sampler(nn.Module):
    """Base of all samplers.

    A subclass sets `Config` where it has hyper-parameters, takes ``(config, task, scorer)``,
    implements `draw` and says where it comes from in `citation`. Parameters and buffers are kept in
    checkpoints, and parameters move by the gradient of the training loss.

    `counter` [1] int64 counts the batches drawn so far, on the device, and the program that draws
    moves it on. Draws must be a function of the seed, the counter, parameters and buffers alone, so
    that a training can be resumed. A sampler that reads the counter on the device only, as
    `filtered_negatives` does, may set `capturable`: a CUDA graph can then replay it.
    """

    Config: ClassVar[type[SamplerConfig]] = SamplerConfig
    capturable: ClassVar[bool] = False
    citation: ClassVar[str]

    def __init__(self, config: SamplerConfig, task: SamplingTask, scorer: Scorer) -> None:
        """Takes what it needs to know of `scorer` (widths, say), but must not keep it."""
        super().__init__()
        self.config = config
        self.task = task
        self.counter: Tensor
        self.register_buffer("counter", torch.zeros(1, dtype=torch.int64), persistent=False)

    @property
    def step(self) -> int:
        """Batches drawn so far; on a GPU, to ask is to wait for it."""
        return int(self.counter)

    @step.setter
    def step(self, step: int) -> None:
        self.counter.fill_(step)

    def draw(self, positives: Tensor, scorer: Scorer) -> Drawn:
        """Negatives of `positives` [B, 3], N = `task.negatives` of each."""
        raise NotImplementedError(f"{type(self).__name__} defines no draw")

    def parameter_groups(self) -> list[ParameterGroup]:
        """Which parameters move at which share of the learning rate; by default all at it."""
        parameters = list(self.parameters())
        return [ParameterGroup(parameters)] if parameters else []

    def generator(self, stream: str = "draws") -> torch.Generator:
        """Random numbers of `stream` for this step alone, so that there is no state to keep."""
        name = f"{stream} {self.step}"
        return generator(self.task.seed, name, self.task.triples.device)


def candidate_blocks(scorer: Scorer, query_width: int) -> Sequence[slice]:
    """The columns of the blocks, the views, of a scorer's candidate rows, from left to right."""
    spans = {(p.candidate, p.candidate + p.width) for p in scorer.pairs(query_width)}
    return [slice(*span) for span in sorted(spans)]


def side_rows(queries: Tensor, side: Tensor) -> Tensor:
    """Of `queries` [2, B, Dq], in the order of `Side`, the rows that `side` [B, ...] asks for."""
    tail, head = (q.view(len(q), *[1] * (side.dim() - 1), -1) for q in queries)
    return torch.where((side == Side.head)[..., None], head, tail)
