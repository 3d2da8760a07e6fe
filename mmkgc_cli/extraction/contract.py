"""Contract of an extraction: inputs, skipped inputs, encoders and their options."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

T = TypeVar("T")


class Skip(Exception):
    """An input cannot be used; the message is the reason in one line, without the origin."""


@dataclass(frozen=True)
class Input(Generic[T]):
    """One picture, text or clip of one entity; `load` reads it when its batch is due."""

    entity: str
    origin: str  # location for messages: "file:line", "archive.zip!member", "folder/e/1.png"
    load: Callable[[], T]  # raises Skip
    size: int = 0  # for example in bytes; inputs of similar size share a batch


@dataclass(frozen=True)
class Skipped:
    """A skipped input and the reason."""

    entity: str  # empty if unknown
    origin: str
    reason: str


@dataclass(frozen=True, eq=False)
class InputSet(Generic[T]):
    """The inputs of a graph's entities, the skipped ones, and their source."""

    inputs: Mapping[str, Sequence[Input[T]]]  # by entity; entities without inputs are absent
    source: str  # name and "sha256 …" of all bytes of the inputs
    preprocess: str = ""  # selected columns, recorded in the store
    skipped: Sequence[Skipped] = ()
    outside: int = 0  # number of ids that are not in the graph
    outside_example: str = ""
    train_id: str = ""  # train split that the inputs depend on


@dataclass(frozen=True)
class EncoderMetadata:
    """The encoder fields of `features.metadata.Metadata`."""

    name: str
    revision: str
    preprocess: str
    pooling: str


class Encoder(ABC, Generic[T]):
    """Converts inputs to vectors.

    `metadata`, `width` and `notes` must be set when `fit` returns. Batches depend on the job only,
    not on where an extraction was resumed; the driver ensures that.
    """

    metadata: EncoderMetadata
    width: int
    notes: tuple[str, ...] = ()  # recorded in the store, for example the meaning of the columns
    conditions: Mapping[str, str] = {}  # further influences on rounding, such as the device type

    def fit(self, items: Iterable[T]) -> None:
        """Fits the encoder to all readable inputs of the job; by default does nothing."""

    def admit(self, item: T) -> None:
        """Checks or prepares an input before it is encoded.

        Raises:
            Skip: the encoder cannot use this input.
        """

    @abstractmethod
    def encode(self, items: Sequence[T]) -> NDArray[np.float32]:
        """Vectors float32 ``[n, width]``, one per input."""


@dataclass(frozen=True)
class InputOptions:
    """Options of the inputs on the command line."""

    path: Path | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderOptions:
    """Options of an encoder on the command line; None if not given."""

    batch_size: int = 64
    device: str = "auto"
    pooling: str | None = None
    precision: str | None = None
    min_count: int | None = None
    weights: Path | None = None


@dataclass(frozen=True)
class EncoderEntry:
    """An encoder of the registry."""

    name: str
    help: str  # one line
    make: Callable[[EncoderOptions], Encoder[Any]]
    options: frozenset[str] = field(default_factory=frozenset)  # names of the options that it uses
    default: bool = False
