"""Decoding of frames from videos, animations and folders of pictures."""

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
# A video longer than _LONG seconds is truncated if its packets cover less than _WHOLE of it; the
# last packet may last long.
_LONG, _WHOLE = 1.0, 0.8
# Containers with their own data; playlists, for example, would open other files.
_FORMATS = (
    "avi,asf,flv,h264,hevc,ivf,m4v,matroska,webm,mov,mp4,m4a,3gp,3g2,mj2,mpeg,mpegts,mpegvideo,"
    "mxf,ogg,rm,swf,wtv,y4m,yuv4mpegpipe"
)
DECODING = "the frame in the middle of each of {} equal parts"


@dataclass(frozen=True, slots=True)
class Clip:
    """A video: one file, or one picture file per frame in order."""

    files: tuple[File, ...]


def middles(total: int, count: int) -> list[int]:
    """The middle frames of `count` equal parts; repeated if `total` is less than `count`."""
    return [(2 * i + 1) * total // (2 * count) for i in range(count)]


def frames(clip: Clip, count: int, keep: Callable[[Image], T]) -> list[T]:
    """Decodes `count` evenly spaced frames of a video (`middles`).

    Args:
        clip: the video.
        count: number of frames; frames are repeated if the video has fewer.
        keep: converts an RGB frame to the array to keep; one frame is in memory at a time.

    Raises:
        Skip: the file is not a video, damaged, truncated or too large.
        DataError: the format needs a package that is not installed.
    """
    if len(clip.files) > 1:
        return [keep(_frame(clip.files[i])) for i in middles(len(clip.files), count)]
    file = clip.files[0]
    with file.open() as opened:
        if is_picture(opened.read(_HEAD)):
            return decode_frames(file.read(), lambda total: middles(total, count), keep)
        if importlib.util.find_spec("av") is None:
            raise DataError("videos need PyAV", fix="run `pip install 'mmkgc[video]'`")
        return _decode_video(opened, count, keep)


def _frame(file: File) -> Image:
    try:
        return decode(file.read())
    except Skip as reason:
        raise Skip(f"frame {file.origin}: {reason}") from None


def _decode_video(file: IO[bytes], count: int, keep: Callable[[Image], T]) -> list[T]:
    import av

    av.logging.set_level(av.logging.PANIC)
    try:
        total = _count_frames(file)
        result = _decode_frames(file, middles(total, count), keep)
        if isinstance(result, int):  # some packets contain no frame
            if not result:
                raise Skip("no frame can be decoded")
            result = _decode_frames(file, middles(result, count), keep)
    except (av.FFmpegError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise Skip(f"damaged, truncated or not a video: {reason}") from None
    if isinstance(result, int):
        raise Skip("decodes to different numbers of frames")
    return result


def _open_video(file: IO[bytes]) -> Any:
    import av

    file.seek(0)
    container = av.open(file, metadata_errors="ignore", options={"format_whitelist": _FORMATS})
    video = container.streams.video
    if not video or video[0].codec_context is None:
        container.close()
        raise Skip(
            "has an unknown video codec" if video else "has no pictures, only sound or text"
        )  # fmt: skip
    return container


def _count_frames(file: IO[bytes]) -> int:
    """The number of packets with data, without decoding them."""
    with _open_video(file) as container:
        stream = container.streams.video[0]
        width, height = stream.codec_context.width, stream.codec_context.height
        if width * height > MOST_PIXELS:
            raise Skip(f"has {width:,} x {height:,} pixels, more than {MOST_PIXELS:,}")
        total, last_time = 0, 0.0
        for packet in container.demux():
            total += bool(packet.size and packet.stream.index == stream.index)
            if packet.pts is not None and packet.time_base is not None:
                last_time = max(last_time, float(packet.pts * packet.time_base))
        if total < stream.frames:
            raise Skip(f"truncated: {total:,} frames, expected {stream.frames:,}")
        start = (container.start_time or 0) / _MICROSECONDS
        duration = (container.duration or 0) / _MICROSECONDS
        if duration > _LONG and last_time - start < _WHOLE * duration:
            raise Skip(f"truncated: {last_time - start:.1f} s, expected {duration:.1f} s")
    if not total:
        raise Skip("has no frames")
    return total


def _decode_frames(
    file: IO[bytes], frame_numbers: Sequence[int], keep: Callable[[Image], T]
) -> list[T] | int:
    """Decodes these frames in order; returns the number of frames if there are too few."""
    result: dict[int, T] = {}
    number = -1
    with _open_video(file) as container:
        # Threads of the decoder call back into Python: if one waits for the interpreter while this
        # thread waits for it, as happened with a truncated VP9 video, neither goes on.
        container.streams.video[0].codec_context.thread_count = 1
        for number, frame in enumerate(container.decode(video=0)):
            if number in frame_numbers:
                result[number] = keep(frame.to_image())
            if number == frame_numbers[-1]:
                return [result[i] for i in frame_numbers]
    return number + 1
