"""Decoding of sounds from untrusted files: mono clips at one sampling rate."""

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
MOST_CLIPS = 30  # per sound
_SHORTEST = 0.025  # seconds; one window of a spectrogram
_RATES = range(1_000, 384_001)
_ZEROS = 16  # zero crossings of the filter on each side
Samples = NDArray[np.float32]


class _Reader(ABC):
    """An open sound with random access to its frames."""

    rate: int
    frames: int

    @abstractmethod
    def read(self, start: int, count: int) -> NDArray[np.float64]:
        """Samples ``[count, channels]`` from -1 to 1; fewer at the end of the data."""


def read_clips(
    file: IO[bytes], rate: int, seconds: float = CLIP_SECONDS, max_clips: int = MOST_CLIPS
) -> list[Samples]:
    """Reads a sound as clips: the mean of the channels at `rate`, from -1 to 1.

    Clips are consecutive. The last one may be shorter; it is dropped if it is shorter than a tenth
    of a clip and not the only one. A sound with more than `max_clips` clips gives `max_clips` at
    equal distances, including the first and the last. One clip at a time is in memory at the
    original rate.

    Raises:
        Skip: the file is not a sound, damaged, truncated, shorter than 25 ms, or not finite.
        DataError: the format needs a package that is not installed.
    """
    with _open_sound(file) as sound:
        if sound.rate not in _RATES:
            raise Skip(f"has {sound.rate:,} samples per second")
        if sound.frames < _SHORTEST * sound.rate:
            raise Skip(f"lasts {1000 * sound.frames / sound.rate:.3g} ms, expected at least 25 ms")
        length = max(1, round(seconds * sound.rate))
        # A header may declare any number of frames.
        every_start = range(0, sound.frames, length)
        if len(every_start) > 1 and sound.frames - every_start[-1] < length / 10:
            every_start = every_start[:-1]
        starts = list(every_start[:max_clips])
        if len(every_start) > max_clips:
            indices = np.linspace(0, len(every_start) - 1, max_clips).round().astype(int)
            starts = [every_start[i] for i in indices.tolist()]
        result = []
        for start in starts:
            count = min(length, sound.frames - start)
            data = sound.read(start, count)
            if len(data) < count:
                raise Skip(f"truncated: {start + len(data):,} samples, expected {sound.frames:,}")
            if not np.isfinite(data).all():
                raise Skip("has samples that are not finite")
            result.append(resample(data.mean(axis=1), sound.rate, rate))
        return result


@contextmanager
def _open_sound(file: IO[bytes]) -> Iterator[_Reader]:
    head = file.read(12)
    file.seek(0)
    if head[:4] == b"RIFF" and head[8:] == b"WAVE":
        try:
            with wave.open(file, "rb") as opened:
                yield _Wave(opened)
                return
        except RuntimeError:  # of the module wave, without a message
            raise Skip("damaged or truncated: a chunk ends outside of the file") from None
        except wave.Error as error:
            if "unknown format" not in str(error):
                raise Skip(f"damaged or truncated: {error}") from None
            file.seek(0)  # other sample formats, which soundfile reads
        except EOFError:
            raise Skip("truncated in its header") from None
    elif not _is_known_sound(head):
        raise Skip(f"not a sound in a known format (starts with {head[:8].hex(' ')})")
    if importlib.util.find_spec("soundfile") is None:
        raise DataError(
            "sounds other than plain WAV need soundfile", fix="run `pip install 'mmkgc[audio]'`"
        )
    import soundfile

    try:
        with soundfile.SoundFile(file) as sound:
            yield _SoundFile(sound)
    except (soundfile.SoundFileError, RuntimeError) as error:
        raise Skip(f"damaged, truncated or not a sound: {' '.join(str(error).split())}") from None


def _is_known_sound(head: bytes) -> bool:
    """Whether the first bytes of a file are those of a sound other than WAV."""
    magics = (b"fLaC", b"OggS", b"FORM", b"RIFX", b"RF64", b"caff", b".snd", b"ID3", b"riff")
    return head.startswith(magics) or (head[:1] == b"\xff" and len(head) > 1 and head[1] >= 0xE0)


class _Wave(_Reader):
    def __init__(self, reader: wave.Wave_read) -> None:
        self._wave = reader
        self.rate, self.frames = reader.getframerate(), reader.getnframes()
        self._bytes, self._channels = reader.getsampwidth(), reader.getnchannels()
        if not self._channels:
            raise Skip("has no channel")
        if self._bytes not in range(1, 5):
            raise Skip(f"has {8 * self._bytes:,} bits per sample, expected 8, 16, 24 or 32")

    def read(self, start: int, count: int) -> NDArray[np.float64]:
        self._wave.setpos(start)
        data = self._wave.readframes(count)
        size = self._bytes
        data = data[: len(data) - len(data) % (size * self._channels)]
        if size == 1:  # 8 bits are unsigned
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


def resample(samples: NDArray[np.float64], rate: int, new_rate: int) -> Samples:
    """Resamples to another rate, band-limited.

    The filter is a sinc with a Hann window, cut off at the lower Nyquist frequency and scaled to
    preserve constants. The first and the last sample are repeated at the borders.

    Args:
        samples: ``[n]``.
        rate: rate of `samples` in Hz.
        new_rate: rate of the result in Hz; its length is n · new_rate / rate, rounded up.
    """
    if rate == new_rate:
        return samples.astype(np.float32)
    common = math.gcd(rate, new_rate)
    down, up = rate // common, new_rate // common
    cut = min(1.0, up / down)
    half = math.ceil(_ZEROS / cut)
    # Output j is at position j · down / up: a whole number of samples plus one of `up` phases.
    phase = np.arange(up)[:, None] / up
    distance = np.arange(-half, half + 1)[None, :] - phase
    in_window = np.abs(distance) * cut < _ZEROS
    taps = np.where(
        in_window, np.sinc(distance * cut) * np.cos(distance * cut * (np.pi / 2 / _ZEROS)) ** 2, 0.0
    )
    taps /= taps.sum(axis=1, keepdims=True)
    count = -(-len(samples) * up // down)
    padded = np.pad(samples, (half, half), mode="edge")
    windows = np.lib.stride_tricks.sliding_window_view(padded, 2 * half + 1)
    result = np.empty(count, dtype=np.float32)
    for first_output in range(min(up, count)):
        # All outputs of one phase: j = first_output, first_output + up, …, `down` samples apart.
        offset = first_output * down
        outputs = result[first_output::up]
        outputs[:] = windows[offset // up :: down][: len(outputs)] @ taps[offset % up]
    return result
