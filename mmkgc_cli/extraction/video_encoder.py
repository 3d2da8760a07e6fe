"""What encoders of videos share, and videos through encoders of pictures."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from mmkgc_cli.extraction.media import Array, MediaEncoder
from mmkgc_cli.extraction.picture_encoder import PictureEncoder
from mmkgc_cli.extraction.videos import DECODING, Clip, frames

if TYPE_CHECKING:
    from PIL.Image import Image

FRAMES = 16  # of a video, unless its model wants another number


class VideoEncoder(MediaEncoder[Clip]):
    """Makes one vector of the frames of a video, as soon as it was read: they are a batch."""

    count: int = FRAMES

    def prepare(self, source: Clip) -> Array:
        """The vector of a video."""
        return self.vector(frames(source, self.count, self.pixels))

    @abstractmethod
    def pixels(self, frame: Image) -> Array:
        """A frame, in RGB, as an input of `vector`."""

    @abstractmethod
    def vector(self, found: Sequence[Array]) -> Array:
        """The vector ``[width]`` of `count` frames."""

    @property
    def decoding(self) -> str:
        """How frames are chosen, for `about`."""
        return DECODING.format(self.count)


class PooledFrames(VideoEncoder):
    """The mean of the vectors of 16 frames, each a picture to an encoder of pictures."""

    def __init__(self, pictures: PictureEncoder) -> None:
        self._pictures = pictures
        self.width = pictures.width
        self.conditions = pictures.conditions
        about = pictures.about
        self.about = replace(
            about, preprocess=f"{self.decoding}; {about.preprocess}",
            pooling=f"{about.pooling}; mean over frames",
        )  # fmt: skip

    def pixels(self, frame: Image) -> Array:
        """As the encoder of pictures has it."""
        return self._pictures.pixels(frame)

    def vector(self, found: Sequence[Array]) -> Array:
        """The vector ``[width]`` of the frames."""
        mean: Array = self._pictures.vectors(found).mean(axis=0)
        return mean
