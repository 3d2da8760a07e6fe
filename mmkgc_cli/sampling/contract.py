"""The sampler contract: the base class of sampler plugins, and the forms of negatives.

A sampler takes the train triples and its settings once, then returns negatives for one batch of
positives after another, in one of four forms:

(i)   `Candidates`: entities by id; or `SharedNegatives`, which many positives share;
(ii)  `SoftNegatives`: mixtures of the candidate rows of a pool, hard or soft, with gradients;
(iii) `BlockwiseNegatives`: candidate rows with blocks of different entities;
(iv)  `EmbeddedNegatives`: candidate rows themselves, for example generated ones.

`training.negative_scores` scores all of them. A plugin defines `SAMPLER`, a subclass of `Sampler`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import ClassVar, Literal

import torch
from torch import Tensor, nn

from mmkgc_cli.ops import SideChoice
from mmkgc_cli.plugins.settings import PluginSettings
from mmkgc_cli.scoring.contract import Candidates, ParameterGroup, Scorer
from mmkgc_cli.sides import Side
from mmkgc_cli.state.rng import generator

__all__ = [
    "BlockwiseNegatives",
    "Candidates",
    "EmbeddedNegatives",
    "NegativeBatch",
    "Sampler",
    "SamplerConfig",
    "SamplingTask",
    "SharedNegatives",
    "SideDraw",
    "SoftNegatives",
    "candidate_blocks",
    "select_queries",
]

# The probability of each side to be corrupted.
SideDraw = Literal["bernoulli", "uniform"]


class SamplerConfig(PluginSettings):
    """Hyper-parameters of a sampler; subclasses add typed fields with defaults and help."""


@dataclass(frozen=True)
class SamplingTask:
    """The data of every sampler; see the section `training` for `negatives`, `mode`, `choice`.

    `triples` [n, 3] are the train triples, on the device of the sampler.
    """

    triples: Tensor
    n_entities: int
    n_relations: int
    negatives: int
    mode: SideDraw
    choice: SideChoice
    seed: int


@dataclass(frozen=True)
class SharedNegatives:
    """Interface (i) with negatives that are shared by chunks of `chunk` positives.

    `ids` [K, N] int64 and `corrupted_side` [K] int8 belong to K chunks; the last chunk may be
    smaller; `mask` is [B, N].
    """

    ids: Tensor
    corrupted_side: Tensor
    mask: Tensor
    chunk: int

    def expand(self, positives: Tensor) -> Candidates:
        """The same negatives as candidates of each of the `positives` [B, 3]."""
        chunk_of = torch.arange(len(positives), device=positives.device) // self.chunk
        corrupted_side = self.corrupted_side[chunk_of, None].expand_as(self.mask)
        return Candidates.from_negatives(positives, self.ids[chunk_of], corrupted_side, self.mask)


@dataclass(frozen=True)
class SoftNegatives:
    """Interface (ii): rows ``weights @ candidates(pool)``, with gradients for both factors.

    `weights` [B, N, P] over the entities `pool` [P] int64, one-hot or soft; `corrupted_side`
    [B, N] int8; `mask` [B, N] bool, or None where all contribute to the loss.
    """

    weights: Tensor
    pool: Tensor
    corrupted_side: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class BlockwiseNegatives:
    """Interface (iii): candidate rows with each of V blocks from an entity of its own.

    `ids` [B, N, V] int64 has an entity for each block of the scorer's candidate rows, in the order
    of their columns; a block that is not corrupted keeps the positive's entity. `corrupted_side`
    [B, N] int8; `mask` [B, N] bool, or None where all contribute to the loss.
    """

    ids: Tensor
    corrupted_side: Tensor
    mask: Tensor | None = None


@dataclass(frozen=True)
class EmbeddedNegatives:
    """Interface (iv): candidate rows `vectors` [B, N, Dc], with gradients.

    `corrupted_side` [B, N] int8; `mask` [B, N] bool, or None where all contribute to the loss.
    """

    vectors: Tensor
    corrupted_side: Tensor
    mask: Tensor | None = None


NegativeBatch = (
    Candidates | SharedNegatives | SoftNegatives | BlockwiseNegatives | EmbeddedNegatives
)


class Sampler(nn.Module):
    """Base class of all samplers.

    A subclass sets `Config` where it has hyper-parameters, takes ``(config, task, scorer)``,
    implements `draw` and sets `citation`. Its parameters are trained by the gradient of the
    training loss; checkpoints contain its parameters and buffers.

    `counter` [1] int64, on the device, is the number of batches drawn so far; the training program
    increments it. Negatives must be a function of the seed, the counter, parameters and buffers
    only, so that a training can be resumed. A sampler that reads the counter only on the device,
    as `filtered_negatives` does, may set `capturable`: then a CUDA graph can replay it.
    """

    Config: ClassVar[type[SamplerConfig]] = SamplerConfig
    capturable: ClassVar[bool] = False
    citation: ClassVar[str]

    def __init__(self, config: SamplerConfig, task: SamplingTask, scorer: Scorer) -> None:
        """Creates the sampler; it may inspect `scorer` (its widths, say), but must not keep it."""
        super().__init__()
        self.config = config
        self.task = task
        self.counter: Tensor
        self.register_buffer("counter", torch.zeros(1, dtype=torch.int64), persistent=False)

    @property
    def step(self) -> int:
        """Number of batches drawn so far; on a GPU, reading it synchronizes."""
        return int(self.counter)

    @step.setter
    def step(self, step: int) -> None:
        self.counter.fill_(step)

    def draw(self, positives: Tensor, scorer: Scorer) -> NegativeBatch:
        """N = `task.negatives` negatives of each of the `positives` [B, 3]."""
        raise NotImplementedError(f"{type(self).__name__} defines no draw")

    def parameter_groups(self) -> list[ParameterGroup]:
        """Groups of parameters with their factors of the learning rate; by default one group."""
        parameters = list(self.parameters())
        return [ParameterGroup(parameters)] if parameters else []

    def generator(self, stream: str = "draws") -> torch.Generator:
        """A generator of the random stream `stream` for this step only: there is no state."""
        name = f"{stream} {self.step}"
        return generator(self.task.seed, name, self.task.triples.device)


def candidate_blocks(scorer: Scorer, query_width: int) -> Sequence[slice]:
    """The columns of the blocks of a scorer's candidate rows, from left to right."""
    spans = {(p.candidate, p.candidate + p.width) for p in scorer.pairs(query_width)}
    return [slice(*span) for span in sorted(spans)]


def select_queries(queries: Tensor, corrupted_side: Tensor) -> Tensor:
    """The rows of `queries` [2, B, Dq], in the order of `Side`, for `corrupted_side` [B, ...]."""
    tail, head = (q.view(len(q), *[1] * (corrupted_side.dim() - 1), -1) for q in queries)
    return torch.where((corrupted_side == Side.head)[..., None], head, tail)
