"""Statistics of a log-mel spectrogram: a sound encoder without weights."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.extraction.contract import EncoderMetadata
from mmkgc_cli.extraction.media import Array, SoundEncoder
from mmkgc_cli.extraction.sounds import Samples

BANDS = 64
_WINDOW, _STEP, _FFT = 400, 160, 512  # 25 ms every 10 ms at 16 kHz
_LOWEST, _HIGHEST = 50.0, 8000.0  # Hz
_FLOOR = 1e-10


class LogMelStats(SoundEncoder):
    """Mean and standard deviation over time of log10 energy in 64 mel bands; width 128.

    Hann windows of 25 ms every 10 ms; triangular bands from 50 to 8,000 Hz, equally spaced on the
    mel scale of O'Shaughnessy, m = 2595 log10(1 + f / 700). Statistics are over all clips.
    """

    rate = 16_000

    def __init__(self) -> None:
        self.metadata = EncoderMetadata(
            "log-mel-stats", "1",
            f"{self.decoding}; windows of 25 ms every 10 ms, {BANDS} mel bands of "
            f"{_LOWEST:g} to {_HIGHEST:g} Hz, log10",
            "mean and deviation over time",
        )  # fmt: skip
        self.width = 2 * BANDS
        self._bands = mel_bands()

    def vector(self, clips: Sequence[Samples]) -> Array:
        """The vector ``[128]`` of the clips of a sound."""
        energy = np.concatenate([_spectra(clip) for clip in clips]) @ self._bands.T
        levels = np.log10(np.maximum(energy, _FLOOR))
        return np.concatenate([levels.mean(axis=0), levels.std(axis=0)], dtype=np.float32)


def mel_bands() -> NDArray[np.float64]:
    """Weights of the frequency bins in each band ``[64, 257]``, at most 1."""
    low_end, high_end = (2595 * math.log10(1 + f / 700) for f in (_LOWEST, _HIGHEST))
    points = 700 * (10 ** (np.linspace(low_end, high_end, BANDS + 2) / 2595) - 1)
    frequencies = np.arange(_FFT // 2 + 1) * LogMelStats.rate / _FFT
    low, middle, high = (points[i : BANDS + i, None] for i in range(3))
    rising = (frequencies - low) / (middle - low)
    falling = (high - frequencies) / (high - middle)
    weights: NDArray[np.float64] = np.clip(np.minimum(rising, falling), 0, None)
    return weights


def _spectra(clip: Samples) -> NDArray[np.float64]:
    """Energies ``[windows, 257]``; a clip shorter than a window is padded with zeros."""
    padded = np.pad(clip.astype(np.float64), (0, max(0, _WINDOW - len(clip))))
    windows = np.lib.stride_tricks.sliding_window_view(padded, _WINDOW)[::_STEP]
    spectrum = np.fft.rfft(windows * np.hanning(_WINDOW), _FFT)
    energies: NDArray[np.float64] = np.abs(spectrum) ** 2
    return energies
