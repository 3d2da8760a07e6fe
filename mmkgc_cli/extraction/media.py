"""What encoders of pictures, sounds and videos share: each is made small as it is read."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.extraction.contract import Encoder

S = TypeVar("S")
Array = NDArray[np.float32]


class Medium(Generic[S]):
    """A picture, sound or video of an entity: where it is, and what its encoder has made of it."""

    def __init__(self, source: S) -> None:
        self.source = source
        self.ready: Array | None = None


class MediaEncoder(Encoder[Medium[S]], Generic[S]):
    """Reads and prepares each input alone, so that a batch holds little of each.

    A picture in full size may have 200 MB; what the model sees of it has half a megabyte.
    """

    @abstractmethod
    def prepare(self, source: S) -> Array:
        """What `vectors` wants of one input.

        Raises:
            Skip: when it cannot be read, or this encoder can make nothing of it.
        """

    def vectors(self, ready: Sequence[Array]) -> Array:
        """Vectors ``[n, width]`` of prepared inputs; these are the vectors unless overridden."""
        return np.stack(ready)

    def admit(self, item: Medium[S]) -> None:
        """Prepares an input."""
        item.ready = self.prepare(item.source)

    def encode(self, items: Sequence[Medium[S]]) -> Array:
        """Vectors ``[n, width]``."""
        return self.vectors([self._ready(item) for item in items])

    def _ready(self, item: Medium[S]) -> Array:
        if item.ready is None:
            self.admit(item)
        assert item.ready is not None
        return item.ready
