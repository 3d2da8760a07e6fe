"""What the pieces of an extraction agree on: inputs, what is left out of them, and encoders."""

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
    """One input cannot be used; the message is the reason, in one line, without its place."""


@dataclass(frozen=True)
class Input(Generic[T]):
    """One picture, text or clip of one entity, read when it is its turn."""

    entity: str
    origin: str  # for messages: "file:line", "archive.zip!member", "folder/e/1.png"
    load: Callable[[], T]  # raises Skip
    size: int = 0  # in bytes or the like: inputs of like size share a batch


@dataclass(frozen=True)
class Skipped:
    """An input that was left out, and why."""

    entity: str  # empty where nobody knows whose it was
    origin: str
    reason: str


@dataclass(frozen=True, eq=False)
class Found(Generic[T]):
    """The inputs of a graph's entities, and what was seen on the way to them."""

    inputs: Mapping[str, Sequence[Input[T]]]  # by entity of the graph; those without are not there
    source: str  # name and "sha256 …" of all bytes that were, or will be, read
    preprocess: str = ""  # what was chosen from the source: part of what the store records
    skipped: Sequence[Skipped] = ()
    outside: int = 0  # how many ids are no entity of the graph
    outside_example: str = ""
    train_id: str = ""  # of the train split that inputs were made from


@dataclass(frozen=True)
class EncoderAbout:
    """What a store records of its encoder, as in `features.about.About`."""

    name: str
    revision: str
    preprocess: str
    pooling: str


class Encoder(ABC, Generic[T]):
    """Turns inputs into vectors.

    `about`, `width` and `notes` may be set as late as in `fit`. The vector of an input must not
    depend on where a resume began: batches follow from the job alone, the driver sees to that.
    """

    about: EncoderAbout
    width: int
    notes: tuple[str, ...] = ()  # for whoever reads the store: what the columns are
    conditions: Mapping[str, str] = {}  # what else the last bits depend on: the kind of device

    def fit(self, items: Iterable[T]) -> None:
        """Meets all inputs of the job that can be read, before the first is encoded.

        Most encoders have nothing to learn from them and leave `items` alone.
        """

    def admit(self, item: T) -> None:
        """Looks at an input before it is encoded.

        Raises:
            Skip: when this encoder can make nothing of it.
        """

    @abstractmethod
    def encode(self, items: Sequence[T]) -> NDArray[np.float32]:
        """Vectors float32 ``[n, width]``, one an input."""


@dataclass(frozen=True)
class InputOptions:
    """What the command line says of inputs."""

    path: Path | None = None
    columns: tuple[str, ...] = ()


@dataclass(frozen=True)
class EncoderOptions:
    """What the command line says of an encoder; None where it says nothing."""

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
    options: frozenset[str] = field(default_factory=frozenset)  # of `EncoderOptions`, that it takes
    default: bool = False
