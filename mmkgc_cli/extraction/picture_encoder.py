"""What encoders of pictures share."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING

from mmkgc_cli.extraction.files import File
from mmkgc_cli.extraction.media import Array, MediaEncoder
from mmkgc_cli.extraction.pictures import decode

if TYPE_CHECKING:
    from PIL.Image import Image


class PictureEncoder(MediaEncoder[File]):
    """Encodes pictures, and the frames of videos."""

    def prepare(self, source: File) -> Array:
        """The picture in a file as an input of `vectors`."""
        return self.pixels(decode(source.read()))

    @abstractmethod
    def pixels(self, picture: Image) -> Array:
        """An RGB picture as an input of `vectors`."""
