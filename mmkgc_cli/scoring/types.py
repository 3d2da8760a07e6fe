"""What passes between the core and a scorer: hyper-parameters, rows, batches, parameter groups."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from torch import Tensor, nn

from mmkgc_cli.errors import DataError
from mmkgc_cli.nn.embeddings import Features
from mmkgc_cli.plugins.settings import PluginSettings
from mmkgc_cli.scoring.faults import shape

# Rows of a scorer, or a list with the rows of each branch.
Rows = Tensor | list[Tensor]


class ScorerConfig(PluginSettings):
    """Hyper-parameters of a scorer; subclasses add typed fields with defaults and help."""


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that move at `rate` times the learning rate."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0


@dataclass(frozen=True)
class Batch:
    """What one training step looked at.

    `triples` ``[B, 3]`` are true. `ids` ``[B, N]`` are the candidates that were scored, the first
    of each row the true one; `side` ``[B, N]`` says what each stands for, and `usable` ``[B, N]``
    which of them are not known to be true, or are the true one. All three are None where a sampler
    has drawn rows that are no entity's.
    """

    triples: Tensor
    ids: Tensor | None = None
    side: Tensor | None = None
    usable: Tensor | None = None


@dataclass(frozen=True)
class Auxiliary:
    """Parameters of a scorer that go down a loss of their own: an estimator, an adversary.

    After each step of the scorer, or the first of each `every`, an Adam of theirs steps them at
    `lr` along `loss`, which is told of the batch of that step. They are in no `ParameterGroup`, and
    no other parameter is moved by the loss. Buffers may be brought up to date in it. It is traced
    as `name`.
    """

    name: str
    parameters: Sequence[nn.Parameter]
    lr: float
    loss: Callable[[Batch], Tensor]
    every: int = 1


@dataclass(frozen=True)
class Shares:
    """What parts of a scorer weigh, for people to look at: `parts` by name, which add up to 1.

    `values` is ``[n, len(parts)]``, of entities or of whatever has weights; NaN where one lacks a
    part.
    """

    name: str
    parts: Sequence[str]
    values: Tensor


def check_features(
    scorer: type, modalities: Sequence[str], features: Mapping[str, Features], entities: int
) -> None:
    """Holds features against the modalities that a scorer declares.

    Raises:
        DataError: for one that is missing or does not belong to these entities.
    """
    for name in modalities:
        if name not in features:
            has = f"it has {', '.join(sorted(features))}" if features else "it has none"
            raise DataError(f"{scorer.__name__}: expected features of modality {name!r}, {has}")
        of = features[name]
        if of.vectors.dim() != 2 or len(of.vectors) != entities or len(of.observed) != entities:
            raise DataError(
                f"{scorer.__name__}: features of modality {name!r} are {shape(of.vectors)} with "
                f"{len(of.observed)} marks, expected a row and a mark for each of {entities} "
                "entities"
            )
