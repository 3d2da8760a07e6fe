"""Frames of videos, of animations, and of folders of pictures."""

from __future__ import annotations

import importlib.util
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import IO, TYPE_CHECKING, Any, TypeVar

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import Skip
from mmkgc_cli.extraction.files import File
from mmkgc_cli.extraction.pictures import MOST_PIXELS, decode, decode_frames, is_picture

if TYPE_CHECKING:
    from PIL.Image import Image

T = TypeVar("T")
_HEAD = 64
_MICROSECONDS = 1_000_000
_LONG, _WHOLE = 1.0, 0.8  # a last packet may last long; seconds, and a share
# Containers that hold their own data: playlists, for instance, would open other files.
_FORMATS = (
    "avi,asf,flv,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,"
    "mxf,ogg,rm,swf,wtv,y4m,yuv4mpegpipe"
)
DECODING = "the frame in the middle of each of {} equal parts"


@dataclass(frozen=True, slots=True)
class Clip:
    """A video: one file, or its frames as pictures in order."""

    files: tuple[File, ...]


def middles(total: int, count: int) -> list[int]:
    """The middles of `count` equal parts of `total` frames; some come twice where it is less."""
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def frames(clip: Clip, count: int, keep: Callable[[Image], T]) -> list[T]:
    """What is kept of `count` frames of a video, evenly spread (`middles`).

    Args:
        clip: the video.
        count: of frames; some come twice where the video has fewer.
        keep: makes what is kept of a frame, an RGB picture; no other one is held then.

    Raises:
        Skip: when it is no video, or damaged, cut off or too large.
        DataError: when it can only be read by a package that is not installed.
    """
    if len(clip.files) > 1:
        return [keep(_frame(clip.files[i])) for i in middles(len(clip.files), count)]
    file = clip.files[0]
    with file.open() as opened:
        if is_picture(opened.read(_HEAD)):
            return decode_frames(file.read(), lambda total: middles(total, count), keep)
        if importlib.util.find_spec("av") is None:
            raise DataError("videos need PyAV to be read: pip install 'mmkgc[video]'")
        return _of_video(opened, count, keep)


def _frame(file: File) -> Image:
    try:
        return decode(file.read())
    except Skip as reason:
        raise Skip(f"frame {file.origin}: {reason}") from None


def _of_video(file: IO[bytes], count: int, keep: Callable[[Image], T]) -> list[T]:
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
        total = _packets(file)
        found = _decoded(file, middles(total, count), keep)
        if isinstance(found, int):  # packets that show nothing are none of its frames
            if not found:
                raise Skip("no frame of it can be decoded")
            found = _decoded(file, middles(found, count), keep)
    except (av.FFmpegError, ValueError) as error:
        words = getattr(error, "strerror", None) or error
        raise Skip(f"damaged, cut off or no video: {words}") from None
    if isinstance(found, int):
        raise Skip("does not decode to the same frames twice")
    return found


def _opened(file: IO[bytes]) -> Any:
    import av

    file.seek(0)
    container = av.open(file, metadata_errors="ignore", options={"format_whitelist": _FORMATS})
    video = container.streams.video
    if not video or video[0].codec_context is None:
        container.close()
        raise Skip(
            "is in a format that is not known here" if video
            else "has no pictures, only sound or text"
        )  # fmt: skip
    return container


def _packets(file: IO[bytes]) -> int:
    """How many frames there are, without decoding them."""
    with _opened(file) as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MOST_PIXELS:
            raise Skip(f"has {width:,} x {height:,} pixels, more than {MOST_PIXELS:,}")
        total, last = 0, 0.0
        for packet in container.demux():
            total += bool(packet.size and packet.stream.index == stream.index)
            if packet.pts is not None and packet.time_base is not None:
                last = max(last, float(packet.pts * packet.time_base))
        if total < stream.frames:
            raise Skip(f"cut off: {stream.frames:,} frames announced, {total:,} found")
        start = (container.start_time or 0) / _MICROSECONDS
        lasts = (container.duration or 0) / _MICROSECONDS
        if lasts > _LONG and last - start < _WHOLE * lasts:
            raise Skip(f"cut off: {lasts:.1f} s announced, {last - start:.1f} s found")
    if not total:
        raise Skip("has no frame")
    return total


def _decoded(file: IO[bytes], wanted: Sequence[int], keep: Callable[[Image], T]) -> list[T] | int:
    """These frames, in order; or how many there are, where they are fewer."""
    found: dict[int, T] = {}
    number = -1
    with _opened(file) as container:
        container.streams.video[0].thread_type = "AUTO"
        for number, frame in enumerate(container.decode(video=0)):
            if number in wanted:
                found[number] = keep(frame.to_image())
            if number == wanted[-1]:
                return [found[i] for i in wanted]
    return number + 1
