"""What passes between the core and a scorer: hyper-parameters, features, batches, faults."""

from __future__ import annotations

import inspect
import os
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from pydantic import BaseModel, ConfigDict
from torch import Tensor, nn

from mmkgc_cli.errors import DataError

# Rows of a scorer, or a list with the rows of each branch.
Rows = Tensor | list[Tensor]


class ScorerConfig(BaseModel):
    """Hyper-parameters of a scorer; subclasses add typed fields with defaults and help."""

    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


@dataclass(frozen=True)
class ParameterGroup:
    """Parameters that move at `rate` times the learning rate."""

    parameters: Sequence[nn.Parameter]
    rate: float = 1.0


@dataclass(frozen=True)
class Features:
    """One modality of all entities, in the order of their ids.

    `vectors` is ``[E, d]`` of floats; `observed` ``[E]`` bool says which rows are measured and not
    filled in.
    """

    vectors: Tensor
    observed: Tensor


NO_FEATURES: Mapping[str, Features] = MappingProxyType({})


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


class ScorerFault(DataError):
    """A plugin breaks the contract."""


CONTRACT = "mmkgc_cli.scoring.contract"


def where(scorer: object, method: str) -> str:
    """``FILE: CLASS.METHOD``, of the class of the plugin that defines the method."""
    of = scorer if isinstance(scorer, type) else type(scorer)
    # What is missing is missing from the plugin, not from the base that asks for it.
    owner = next((c for c in of.__mro__ if method in vars(c)), of)
    owner = of if owner.__module__ == CONTRACT else owner
    try:
        file = inspect.getsourcefile(owner)
    except TypeError:
        file = None
    if file is None:
        return f"{owner.__name__}.{method}"
    shown = os.path.relpath(file) if Path(file).is_relative_to(Path.cwd()) else file
    return f"{shown}: {owner.__name__}.{method}"


def fault(scorer: object, method: str, expected: str, got: str) -> ScorerFault:
    """One line that says where the contract is broken and how."""
    return ScorerFault(f"{where(scorer, method)}: expected {expected}, got {got}")


def shape(value: object) -> str:
    """How a message names what a method gave."""
    if isinstance(value, Tensor):
        return f"{list(value.shape)} {str(value.dtype).removeprefix('torch.')}"
    if isinstance(value, list | tuple):
        return f"a {type(value).__name__} of {len(value)}"
    return type(value).__name__


def kept_tensors(scorer: nn.Module) -> dict[str, Tensor]:
    """All that scores depend on, by name: what is trained, and every buffer.

    More than `state_dict`, which leaves out buffers that are not persistent: frozen features, which
    a resumed training has from their store again, but whoever ranks should not need.
    """
    return {**scorer.state_dict(), **dict(scorer.named_buffers())}


def load_tensors(scorer: nn.Module, tensors: Mapping[str, Tensor]) -> None:
    """Puts saved tensors into a scorer that was made for the same graph, but not fitted.

    Raises:
        RuntimeError: when names or shapes do not fit.
    """
    state = dict(tensors)
    persistent = set(scorer.state_dict())
    for name, buffer in scorer.named_buffers():
        if name in tensors:  # buffers that `fit` sizes, such as counts
            buffer.resize_(tensors[name].shape)
        if name in tensors and name not in persistent:
            buffer.copy_(state.pop(name))
    scorer.load_state_dict(state)


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
