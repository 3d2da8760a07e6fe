"""Encoders and inputs of pictures, sounds and videos: base classes that models extend."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import replace
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Generic, TypeVar

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.extraction import videos
from mmkgc_cli.extraction.contract import Encoder, Input, InputOptions, InputSet
from mmkgc_cli.extraction.files import File, find_files
from mmkgc_cli.extraction.pictures import decode
from mmkgc_cli.extraction.sounds import CLIP_SECONDS, MOST_CLIPS, Samples, read_clips
from mmkgc_cli.extraction.videos import Clip
from mmkgc_cli.kg.graph import Graph

if TYPE_CHECKING:
    from PIL.Image import Image

S = TypeVar("S")
Array = NDArray[np.float32]
FRAMES = 16  # frames per video, unless the model sets another number
# Several of these in one folder are the frames of one video; a GIF is a video by itself.
_FRAME_SUFFIXES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm"}
_DIGITS = re.compile(r"(\d+)")


class MediaItem(Generic[S]):
    """A picture, sound or video of an entity: its source, and the prepared array."""

    def __init__(self, source: S) -> None:
        self.source = source
        self.prepared: Array | None = None


class MediaEncoder(Encoder[MediaItem[S]], Generic[S]):
    """Decodes and prepares each input by itself, so that a batch holds only small arrays.

    A full-size picture may take 200 MB; the input of a model takes half a megabyte.
    """

    @abstractmethod
    def prepare(self, source: S) -> Array:
        """Decodes one input and converts it to an input of `vectors`.

        Raises:
            Skip: the input cannot be read, or this encoder cannot use it.
        """

    def vectors(self, prepared: Sequence[Array]) -> Array:
        """Vectors ``[n, width]`` of prepared inputs; by default the prepared inputs themselves."""
        return np.stack(prepared)

    def admit(self, item: MediaItem[S]) -> None:
        """Prepares an input."""
        item.prepared = self.prepare(item.source)

    def encode(self, items: Sequence[MediaItem[S]]) -> Array:
        """Vectors ``[n, width]``."""
        return self.vectors([self._prepared(item) for item in items])

    def _prepared(self, item: MediaItem[S]) -> Array:
        if item.prepared is None:
            self.admit(item)
        assert item.prepared is not None
        return item.prepared


class PictureEncoder(MediaEncoder[File]):
    """Encodes pictures; `PooledFrames` applies it to the frames of videos."""

    def prepare(self, source: File) -> Array:
        """Decodes the picture in a file."""
        return self.pixels(decode(source.read()))

    @abstractmethod
    def pixels(self, picture: Image) -> Array:
        """Converts an RGB picture to an input of `vectors`."""


class SoundEncoder(MediaEncoder[File]):
    """Encodes the clips of a sound as one batch when the sound is read."""

    rate: int  # sampling rate of the model in Hz
    seconds: float = CLIP_SECONDS

    def prepare(self, source: File) -> Array:
        """The vector of the sound in a file."""
        with source.open() as file:
            return self.vector(read_clips(file, self.rate, self.seconds))

    @abstractmethod
    def vector(self, clips: Sequence[Samples]) -> Array:
        """The vector ``[width]`` of the clips of a sound."""

    @property
    def decoding(self) -> str:
        """Description of the clips for the metadata."""
        return (
            f"mean of channels at {self.rate} Hz; clips of {self.seconds:g} s, at most {MOST_CLIPS}"
        )


class VideoEncoder(MediaEncoder[Clip]):
    """Encodes the frames of a video as one batch when the video is read."""

    count: int = FRAMES

    def prepare(self, source: Clip) -> Array:
        """The vector of a video."""
        return self.vector(videos.frames(source, self.count, self.pixels))

    @abstractmethod
    def pixels(self, frame: Image) -> Array:
        """Converts an RGB frame to an input of `vector`."""

    @abstractmethod
    def vector(self, frames: Sequence[Array]) -> Array:
        """The vector ``[width]`` of `count` frames."""

    @property
    def decoding(self) -> str:
        """Description of the frame selection for the metadata."""
        return videos.DECODING.format(self.count)


class PooledFrames(VideoEncoder):
    """The mean of the vectors of 16 frames from a picture encoder."""

    def __init__(self, picture_encoder: PictureEncoder) -> None:
        self._picture_encoder = picture_encoder
        self.width = picture_encoder.width
        self.conditions = picture_encoder.conditions
        metadata = picture_encoder.metadata
        self.metadata = replace(
            metadata,
            preprocess=f"{self.decoding}; {metadata.preprocess}",
            pooling=f"{metadata.pooling}; mean over frames",
        )

    def pixels(self, frame: Image) -> Array:
        """Converts a frame with the picture encoder."""
        return self._picture_encoder.pixels(frame)

    def vector(self, frames: Sequence[Array]) -> Array:
        """The mean of the vectors of the frames, ``[width]``."""
        mean: Array = self._picture_encoder.vectors(frames).mean(axis=0)
        return mean


def find_pictures(graph: Graph, options: InputOptions) -> InputSet[MediaItem[File]]:
    """Pictures in a folder, an index or an archive; errors as `files.find_files`."""
    files = find_files(graph, options, "pictures", ("image", "picture", "photo"))
    return files.to_input_set(MediaItem)


def find_sounds(graph: Graph, options: InputOptions) -> InputSet[MediaItem[File]]:
    """Sounds in a folder, an index or an archive; errors as `files.find_files`."""
    files = find_files(graph, options, "sounds", ("audio", "sound", "clip"))
    return files.to_input_set(MediaItem)


def find_videos(graph: Graph, options: InputOptions) -> InputSet[MediaItem[Clip]]:
    """Videos in a folder, an index or an archive; errors as `files.find_files`.

    Pictures of an entity in one folder are the frames of one video, in the order of the numbers in
    their names.
    """
    files = find_files(graph, options, "videos", ("video", "clip", "frames"))
    inputs = {}
    for entity, entity_files in files.by_entity.items():
        clips: dict[str, list[File]] = {}
        for file in entity_files:
            path = PurePosixPath(file.key)
            is_frame = path.suffix.casefold() in _FRAME_SUFFIXES
            clips.setdefault(f"{path.parent}/" if is_frame else file.key, []).append(file)
        inputs[entity] = [
            _video_input(entity, sorted(frames, key=_number_key)) for frames in clips.values()
        ]
    return files.with_inputs(inputs)


def _video_input(entity: str, files: list[File]) -> Input[MediaItem[Clip]]:
    clip = Clip(tuple(files))
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return Input(entity, files[0].origin + more, lambda: MediaItem(clip))


def _number_key(file: File) -> list[tuple[int, str]]:
    """Sort key that puts frame 2 before frame 10."""
    parts = _DIGITS.split(file.key)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]
