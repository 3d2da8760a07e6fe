"""Data that the core and a scorer exchange: settings, rows, candidates, batches, parameters."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Protocol

import torch
from torch import Tensor, nn

from mmkgc_cli.errors import DataError
from mmkgc_cli.nn.embeddings import Features
from mmkgc_cli.ops import Metric, Pair
from mmkgc_cli.plugins.settings import PluginSettings
from mmkgc_cli.scoring.faults import shape
from mmkgc_cli.sides import Side

# Rows of a scorer, or a list with the rows of each branch.
Rows = Tensor | list[Tensor]


class ScorerConfig(PluginSettings):
    """Hyper-parameters of a scorer; subclasses add typed fields with defaults and help."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that are trained at `rate` times the learning rate."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0


@dataclass(frozen=True)
class Candidates:
    """Candidate entities of B positives; in training, the first column is the positive.

    Attributes:
        ids: ``[B, N]`` int64 entities.
        corrupted_side: ``[B, N]`` int8 values of `Side`: which entity of the positive each
            candidate replaces. The positive replaces its own tail.
        mask: ``[B, N]`` bool, False for candidates that do not contribute to the loss, such as
            known true triples. None: all contribute.
        order: ``[B * N]`` int64 positions of `ids` (row-major), sorted by id and then by position.
            None: the ops sort where they need to.
    """

    ids: Tensor
    corrupted_side: Tensor
    mask: Tensor | None = None
    order: Tensor | None = None

    @classmethod
    def from_negatives(
        cls, positives: Tensor, ids: Tensor, corrupted_side: Tensor, mask: Tensor | None = None
    ) -> Candidates:
        """Puts `positives` [B, 3] before negatives: `ids`, `corrupted_side`, `mask` [B, N]."""
        first = torch.zeros_like(corrupted_side[:, :1]).expand(len(positives), 1)
        if mask is None:
            mask = torch.ones_like(corrupted_side, dtype=torch.bool)
        return cls(
            torch.cat([positives[:, 2:], ids], 1),
            torch.cat([first, corrupted_side], 1),
            torch.cat([torch.ones_like(first, dtype=torch.bool), mask], 1),
        )

    @property
    def full_mask(self) -> Tensor:
        """`mask`, or a mask ``[B, N]`` that is True everywhere."""
        if self.mask is not None:
            return self.mask
        return torch.ones_like(self.corrupted_side, dtype=torch.bool)


@dataclass(frozen=True)
class Batch:
    """The data of one training step.

    `triples` ``[B, 3]`` are true. `candidates` are the entities that were scored, the positive in
    the first column; None where the sampler generated rows instead of choosing entities, and in
    1-vs-all training.
    """

    triples: Tensor
    candidates: Candidates | None = None


@dataclass(frozen=True)
class Auxiliary:
    """Parameters of a scorer with a loss of their own: an estimator or an adversary.

    After a step of the scorer (the first of each `every`), Adam at the rate `lr` moves
    `parameters` along `loss` of the same batch. They belong to no `ParameterGroup`, and the loss
    moves no other parameter; it may update buffers. The trace records the loss as `name`.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    lr: float
    loss: Callable[[Batch], Tensor]
    every: int = 1


@dataclass(frozen=True)
class MixtureWeights:
    """Weights of named parts of a scorer, for `mmkgc inspect`; they sum to 1 over `parts`.

    `values` is ``[n, len(parts)]``, a row per entity (or one row); NaN where a part is missing.
    """

    name: str
    parts: Sequence[str]
    values: Tensor


class RowScorer(Protocol):
    """The interface of a scorer that `scoring.scores` needs; `Scorer` implements it."""

    n_entities: int
    n_relations: int
    config: ScorerConfig
    metric: Metric | tuple[Metric, ...]
    roles: ClassVar[bool]
    per_relation: ClassVar[bool]

    @property
    def margin(self) -> float:
        """See `Scorer.margin`; so for all methods below."""

    def parameters(self, recurse: bool = True) -> Iterator[nn.Parameter]: ...  # noqa: D102

    def buffers(self, recurse: bool = True) -> Iterator[Tensor]: ...  # noqa: D102

    @classmethod
    def scores_triples_only(cls) -> bool: ...  # noqa: D102

    @classmethod
    def adds_losses(cls) -> bool: ...  # noqa: D102

    @classmethod
    def modalities_of(cls, config: ScorerConfig) -> tuple[str, ...]: ...  # noqa: D102

    def query(self, entities: Tensor, relations: Tensor, side: Side) -> Rows: ...  # noqa: D102

    def candidates(  # noqa: D102
        self,
        entities: Tensor | None,
        relation: int | Tensor | None = None,
        side: Side | None = None,
    ) -> Rows: ...

    def scale(  # noqa: D102
        self, entities: Tensor, relations: Tensor, side: Side
    ) -> Rows | None: ...

    def pairs(self, query_width: int, branch: int = 0) -> Sequence[Pair]: ...  # noqa: D102

    def combine(self, scores: list[Tensor]) -> Tensor: ...  # noqa: D102

    def score(self, triples: Tensor) -> Tensor: ...  # noqa: D102

    def score_vectors(  # noqa: D102
        self, queries: Rows, vectors: Rows, scale: Rows | None = None
    ) -> Tensor: ...

    def extra_losses(self, batch: Batch) -> dict[str, Tensor]: ...  # noqa: D102


def check_features(
    scorer: type, modalities: Sequence[str], features: Mapping[str, Features], n_entities: int
) -> None:
    """Checks that `features` has every modality of a scorer, with a row per entity.

    Raises:
        DataError: when a modality is missing or belongs to other entities.
    """
    for name in modalities:
        if name not in features:
            modalities_given = ", ".join(sorted(features)) or "none"
            raise DataError(
                f"{scorer.__name__}: expected features of modality {name!r}, got "
                f"{modalities_given}",
                fix=f"pass a feature store with --features {name}=STORE",
            )
        vectors, observed = features[name].vectors, features[name].observed
        if vectors.dim() != 2 or len(vectors) != n_entities or len(observed) != n_entities:
            raise DataError(
                f"{scorer.__name__}: features of modality {name!r} are {shape(vectors)} with "
                f"{len(observed)} observed marks, expected one row and one mark for each of "
                f"{n_entities} entities",
                fix=f"pass a store of this graph's entities with --features {name}=STORE",
            )
