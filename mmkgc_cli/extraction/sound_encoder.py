"""What encoders of sounds share, and the sounds of entities."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence

from mmkgc_cli.extraction.contract import Found, InputOptions
from mmkgc_cli.extraction.files import File, find_files
from mmkgc_cli.extraction.media import Array, MediaEncoder, Medium
from mmkgc_cli.extraction.sounds import CLIP_SECONDS, MOST_CLIPS, Samples, clips
from mmkgc_cli.kg.graph import Graph

COLUMNS = ("audio", "sound", "clip")


class SoundEncoder(MediaEncoder[File]):
    """Makes one vector of the clips of a sound, as soon as it was read: they are a batch."""

    rate: int  # samples a second that it wants
    seconds: float = CLIP_SECONDS

    def prepare(self, source: File) -> Array:
        """The vector of the sound in a file."""
        with source.open() as opened:
            return self.vector(clips(opened, self.rate, self.seconds))

    @abstractmethod
    def vector(self, found: Sequence[Samples]) -> Array:
        """The vector ``[width]`` of the clips of a sound."""

    @property
    def decoding(self) -> str:
        """How clips are made, for `about`."""
        return (
            f"mean of channels at {self.rate} Hz; clips of {self.seconds:g} s, at most {MOST_CLIPS}"
        )


def find(graph: Graph, options: InputOptions) -> Found[Medium[File]]:
    """Sounds in a folder, an index or an archive (`files.find_files`).

    Raises:
        DataError: when there is no such source, or it cannot be read at all.
        UsageError: for columns that it cannot have.
    """
    return find_files(graph, options, "sounds", COLUMNS).found(Medium)
