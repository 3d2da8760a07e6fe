"""Sounds from files that nobody vouches for: clips of one channel at one rate."""

from __future__ import annotations

import importlib.util
import math
import wave
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from typing import IO, Any

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.errors import DataError
from mmkgc_cli.extraction.contract import Skip

CLIP_SECONDS = 10.0
MOST_CLIPS = 30  # of a sound; a longer one is heard in as many places
_SHORTEST = 0.025  # seconds: a window of what follows
_RATES = range(1_000, 384_001)
_ZEROS = 16  # zero crossings of the filter on either side
_MISSING = "needs soundfile to be read: pip install 'mmkgc[audio]'"
Samples = NDArray[np.float32]


class _Reader(ABC):
    """A sound that is open: frames can be read anywhere."""

    rate: int
    frames: int

    @abstractmethod
    def read(self, start: int, count: int) -> NDArray[np.float64]:
        """Samples ``[count, channels]`` from -1 to 1; fewer at an early end."""


def clips(
    file: IO[bytes], rate: int, seconds: float = CLIP_SECONDS, most: int = MOST_CLIPS
) -> list[Samples]:
    """The sound in a file in clips: the mean of its channels at `rate`, from -1 to 1.

    Clips follow on one another; the last is shorter, and left out where it has less than a tenth of
    a clip and is not the only one. Of a sound with more than `most`, as many are taken at equal
    distances, the first and the last among them. No more than one clip is held at its own rate.

    Raises:
        Skip: when it is no sound, damaged, cut off, shorter than 25 ms, or not finite.
        DataError: when it can only be read by a package that is not installed.
    """
    with _opened(file) as sound:
        if sound.rate not in _RATES:
            raise Skip(f"has {sound.rate:,} samples a second")
        if sound.frames < _SHORTEST * sound.rate:
            raise Skip(f"lasts {1000 * sound.frames / sound.rate:.3g} ms, which is too short")
        length = max(1, round(seconds * sound.rate))
        starts = list(range(0, sound.frames, length))
        if len(starts) > 1 and sound.frames - starts[-1] < length / 10:
            starts.pop()
        if len(starts) > most:
            chosen = np.linspace(0, len(starts) - 1, most).round().astype(int)
            starts = [starts[i] for i in chosen]
        found = []
        for start in starts:
            count = min(length, sound.frames - start)
            data = sound.read(start, count)
            if len(data) < count:
                raise Skip(
                    f"cut off: {sound.frames:,} samples announced, {start + len(data):,} found"
                )
            if not np.isfinite(data).all():
                raise Skip("has samples that are not finite")
            found.append(resampled(data.mean(axis=1), sound.rate, rate))
        return found


@contextmanager
def _opened(file: IO[bytes]) -> Iterator[_Reader]:
    head = file.read(12)
    file.seek(0)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        try:
            with wave.open(file, "rb") as opened:
                yield _Wave(opened)
                return
        except wave.Error as error:
            if "unknown format" not in str(error):
                raise Skip(f"damaged or cut off: {error}") from None
            file.seek(0)  # floats and the like, for the other library
        except EOFError:
            raise Skip("cut off in its header") from None
    elif not _sounds_like_sound(head):
        raise Skip(f"not a sound in a known format (begins {head[:8].hex(' ')})")
    if importlib.util.find_spec("soundfile") is None:
        raise DataError(f"a sound that is not plain WAV {_MISSING}")
    import soundfile

    try:
        with soundfile.SoundFile(file) as sound:
            yield _SoundFile(sound)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise Skip(f"damaged, cut off or no sound: {' '.join(str(error).split())}") from None


def _sounds_like_sound(head: bytes) -> bool:
    """Whether a file may be a sound that is not WAV, by its first bytes."""
    known = (b"fLaC", b"OggS", b"FORM", b"RIFX", b"RF64", b"caff", b".snd", b"ID3", b"riff")
    return head.startswith(known) or (head[:1] == b"\xff" and len(head) > 1 and head[1] >= 0xE0)


class _Wave(_Reader):
    def __init__(self, opened: wave.Wave_read) -> None:
        self._opened = opened
        self.rate, self.frames = opened.getframerate(), opened.getnframes()
        self._bytes, self._channels = opened.getsampwidth(), opened.getnchannels()
        if not self._channels:
            raise Skip("has no channel")

    def read(self, start: int, count: int) -> NDArray[np.float64]:
        self._opened.setpos(start)
        data = self._opened.readframes(count)
        size = self._bytes
        data = data[: len(data) - len(data) % (size * self._channels)]
        if size == 1:  # the only one without a sign
            values = np.frombuffer(data, np.uint8).astype(np.float64) - 128
        elif size == 3:
            raw = np.frombuffer(data, np.uint8).reshape(-1, 3)
            wide = np.zeros((len(raw), 4), dtype=np.uint8)
            wide[:, 1:] = raw
            values = (wide.view("<i4")[:, 0] >> 8).astype(np.float64)
        else:
            values = np.frombuffer(data, f"<i{size}").astype(np.float64)
        return values.reshape(-1, self._channels) / float(1 << (8 * size - 1))


class _SoundFile(_Reader):
    def __init__(self, sound: Any) -> None:
        self._sound = sound
        self.rate, self.frames = sound.samplerate, sound.frames

    def read(self, start: int, count: int) -> NDArray[np.float64]:
        self._sound.seek(start)
        data: NDArray[np.float64] = self._sound.read(count, dtype="float64", always_2d=True)
        return data


def resampled(samples: NDArray[np.float64], rate: int, wanted: int) -> Samples:
    """Samples at another rate, band-limited.

    A sinc under a Hann window, cut at the lower of the two Nyquist frequencies and scaled so that a
    constant stays what it is; before the start and behind the end the first and last sample go on.

    Args:
        samples: ``[n]``.
        rate: of `samples`, a second.
        wanted: of the result, which has n · wanted / rate samples, rounded up.
    """
    if rate == wanted:
        return samples.astype(np.float32)
    common = math.gcd(rate, wanted)
    down, up = rate // common, wanted // common
    cut = min(1.0, up / down)
    half = math.ceil(_ZEROS / cut)
    # Output j stands at j · down / up: whole samples, and one of `up` phases behind them.
    phase = np.arange(up)[:, None] / up
    distance = np.arange(-half, half + 1)[None, :] - phase
    inside = np.abs(distance) * cut < _ZEROS
    taps = np.where(
        inside, np.sinc(distance * cut) * np.cos(distance * cut * (np.pi / 2 / _ZEROS)) ** 2, 0.0
    )
    taps /= taps.sum(axis=1, keepdims=True)
    count = -(-len(samples) * up // down)
    padded = np.pad(samples, (half, half), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    result = np.empty(count, dtype=np.float32)
    for first in range(min(up, count)):
        # All outputs of one phase: j = first, first + up, ..., each `down` samples further on.
        at = first * down
        result[first::up] = windows[at // up :: down][: len(result[first::up])] @ taps[at % up]
    return result
