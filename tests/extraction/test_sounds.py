"""Sounds: what is read of a file, clips, resampling, and the encoders."""

from __future__ import annotations

import io
import math
import struct
import wave
from collections.abc import Callable
from pathlib import Path
from typing import IO

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.extraction.contract import EncoderOptions, Skip
from mmkgc_cli.extraction.files import File
from mmkgc_cli.extraction.log_mel import BANDS, LogMelStats, mel_bands
from mmkgc_cli.extraction.media import SoundEncoder
from mmkgc_cli.extraction.sound_models import SoundModel
from mmkgc_cli.extraction.sounds import read_clips, resample
from tests.extraction.media_models import WIDTH, tiny_ast, tiny_vit, tiny_wav2vec2

RATE = 16_000


def tone(frequency: float, seconds: float, rate: int = RATE, level: float = 0.5) -> np.ndarray:
    times = np.arange(round(seconds * rate)) / rate
    return np.asarray(level * np.sin(2 * np.pi * frequency * times))


def wav(samples: np.ndarray, rate: int = RATE, size: int = 2) -> bytes:
    """A WAV of samples ``[n]`` or ``[n, channels]`` with `size` bytes each."""
    columns = samples[:, None] if samples.ndim == 1 else samples
    integers = np.clip(np.round(columns * (1 << (8 * size - 1))), -(1 << (8 * size - 1)),
                    (1 << (8 * size - 1)) - 1).astype(np.int64)  # fmt: skip
    if size == 1:
        data = (integers + 128).astype(np.uint8).tobytes()
    else:
        data = integers.astype("<i8")[..., None].view(np.uint8)[..., :size].tobytes()
    file = io.BytesIO()
    with wave.open(file, "wb") as opened:
        opened.setnchannels(columns.shape[1])
        opened.setsampwidth(size)
        opened.setframerate(rate)
        opened.writeframes(data)
    return file.getvalue()


def opened(data: bytes) -> IO[bytes]:
    return io.BytesIO(data)


@pytest.mark.parametrize("size", [1, 2, 3, 4])
def test_whole_numbers_of_any_size_are_the_same_sound(size: int) -> None:
    samples = tone(440, 0.2)
    (result,) = read_clips(opened(wav(samples, size=size)), RATE)
    assert result.dtype == np.float32
    assert np.abs(result - samples).max() <= max(0.5 / (1 << (8 * size - 1)), 1e-7)


def test_channels_become_their_mean() -> None:
    channels = np.stack([tone(200, 0.1), tone(900, 0.1)], axis=1)
    (result,) = read_clips(opened(wav(channels)), RATE)
    assert np.abs(result - channels.mean(axis=1)).max() < 1e-4


@pytest.mark.parametrize(
    ("format_name", "subtype"),
    [("FLAC", "PCM_16"), ("OGG", "VORBIS"), ("WAV", "FLOAT"), ("AIFF", "PCM_16"), ("AU", "PCM_16")],
)
def test_other_formats_are_read_as_the_same_sound(format_name: str, subtype: str) -> None:
    import soundfile

    samples, file = tone(440, 0.5), io.BytesIO()
    soundfile.write(file, samples, RATE, subtype, format=format_name)
    (result,) = read_clips(opened(file.getvalue()), RATE)
    assert len(result) == len(samples)
    assert np.abs(result - samples).max() < (0.05 if subtype == "VORBIS" else 1e-4)


# ---------------------------------------------------------------- clips


@pytest.mark.parametrize(
    ("seconds", "lengths"),
    [(0.5, [0.5]), (2.0, [2]), (2.1, [2]), (2.3, [2, 0.3]), (4.0, [2, 2]), (6.5, [2, 2, 2, 0.5])],
)
def test_clips_are_consecutive_and_a_short_end_is_dropped(
    seconds: float, lengths: list[float]
) -> None:
    samples = np.random.default_rng(0).uniform(-1, 1, round(seconds * RATE))
    result = read_clips(opened(wav(samples)), RATE, seconds=2.0)
    assert [len(clip) for clip in result] == [round(length * RATE) for length in lengths]
    joined = np.concatenate(result)
    assert np.abs(joined - samples[: len(joined)]).max() < 1e-4


def test_clips_of_a_long_sound_are_evenly_spaced() -> None:
    levels = np.arange(31) / 64
    result = read_clips(opened(wav(np.repeat(levels, RATE // 10))), RATE, seconds=0.1, max_clips=4)
    assert [round(float(clip.mean()) * 64) for clip in result] == [0, 10, 20, 30]


# ---------------------------------------------------------------- resampling


@given(st.sampled_from([8000, 11_025, 22_050, 44_100, 48_000, 16_001]), st.floats(-1, 1),
       st.integers(1, 3000))  # fmt: skip
def test_resampling_preserves_a_constant_and_the_duration(
    rate: int, level: float, count: int
) -> None:
    result = resample(np.full(count, level), rate, RATE)
    assert len(result) == math.ceil(count * RATE / rate)
    assert np.allclose(result, level, atol=1e-6)


@pytest.mark.parametrize("rate", [8000, 22_050, 44_100, 48_000, 96_000])
@pytest.mark.parametrize("frequency", [50.0, 440.0, 3000.0])
def test_a_tone_below_both_limits_is_preserved(rate: int, frequency: float) -> None:
    result = resample(tone(frequency, 0.5, rate), rate, RATE)
    middle = slice(RATE // 10, -RATE // 10)
    assert np.abs(result - tone(frequency, 0.5))[middle].max() < 5e-3


@pytest.mark.parametrize("frequency", [9500.0, 15_000.0, 20_000.0])
def test_a_tone_above_the_new_limit_is_removed_without_aliasing(frequency: float) -> None:
    result = resample(tone(frequency, 0.5, 48_000), 48_000, RATE)
    assert np.abs(result[RATE // 10 : -RATE // 10]).max() < 0.01


def test_the_rate_of_the_file_itself_changes_no_sample() -> None:
    samples = tone(440, 0.1)
    assert np.array_equal(resample(samples, RATE, RATE), samples.astype(np.float32))


# ---------------------------------------------------------------- bad sounds


def header(**changed: int) -> bytes:
    """A WAV with any values in its header."""
    values = {"format": 1, "channels": 1, "rate": RATE, "bits": 16, "data": 3200} | changed
    frame = values["channels"] * values["bits"] // 8
    fmt = struct.pack(
        "<HHIIHH", values["format"], values["channels"], values["rate"], values["rate"] * frame,
        frame, values["bits"],
    )  # fmt: skip
    data = b"\0" * 3200
    body = b"WAVEfmt " + struct.pack("<I", len(fmt)) + fmt
    body += b"data" + struct.pack("<I", values["data"]) + data
    return b"RIFF" + struct.pack("<I", len(body)) + body


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"plain words, no sound", "not a sound in a known format"),
        (b"RIFF", "not a sound|cut off"),
        (b"RIFF\x24\0\0\0WAVE", "damaged|cut off"),
        (b"RIFF\x24\0\0\0WAVEfmt ", "damaged|cut off"),
        (wav(np.zeros(0)), "lasts 0 ms, expected at least 25 ms"),
        (wav(np.zeros(100)), "lasts 6.25 ms, expected at least 25 ms"),
        (header(data=64_000), "truncated: 1,600 samples, expected 32,000"),
        (header(rate=1), "has 1 samples per second"),
        (header(rate=4_000_000), "has 4,000,000 samples per second"),
        (header(channels=0), "damaged"),
        (header(bits=0), "damaged"),
        (header(format=0x1234), "damaged, truncated or not a sound"),
        (b"fLaC" + b"\0" * 60, "damaged, truncated or not a sound"),
        (b"OggS" + b"\xff" * 60, "damaged, truncated or not a sound"),
        (b"\xff\xfb" + b"\0" * 60, "damaged, truncated or not a sound"),
    ],
)
def test_unusable_data_is_skipped_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Skip, match=reason) as caught:
        read_clips(opened(data), RATE)
    assert "\n" not in str(caught.value)


def test_samples_that_are_not_finite_are_skipped() -> None:
    import soundfile

    file = io.BytesIO()
    samples = tone(440, 0.1)
    samples[7] = np.nan
    soundfile.write(file, samples, RATE, "FLOAT", format="WAV")
    with pytest.raises(Skip, match="not finite"):
        read_clips(opened(file.getvalue()), RATE)


@pytest.mark.parametrize("format_name", ["WAV", "FLAC", "OGG"])
def test_a_truncated_sound_is_skipped_or_its_start(
    format_name: str, capfd: pytest.CaptureFixture[str]
) -> None:
    import soundfile

    file = io.BytesIO()
    samples = np.random.default_rng(0).uniform(-0.5, 0.5, 4000)
    soundfile.write(file, samples, RATE, format=format_name)
    data = file.getvalue()
    for end in range(1, len(data), max(1, len(data) // 40)):
        try:
            (result,) = read_clips(opened(data[:end]), RATE)
        except Skip:
            continue
        assert format_name == "OGG"  # the only one that does not say how long it is
        assert len(result) <= len(samples)
    assert capfd.readouterr().err == ""


def test_a_package_that_is_missing_is_an_error_that_says_how_to_get_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Skipping these would silently omit all sounds that are not WAV."""
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    assert len(read_clips(opened(wav(tone(440, 0.1))), RATE)) == 1
    with pytest.raises(DataError, match=r"need soundfile; run `pip install 'mmkgc\[audio\]'`"):
        read_clips(opened(b"fLaC" + b"\0" * 60), RATE)


# ---------------------------------------------------------------- log-mel-stats


def test_mel_bands_are_triangles_that_sum_to_one() -> None:
    bands = mel_bands()
    assert bands.shape == (BANDS, 257)
    assert bands.min() == 0
    assert bands.max() <= 1
    frequencies = np.arange(257) * RATE / 512
    total = bands.sum(axis=0)
    in_band = (frequencies > 80) & (frequencies < 7500)
    assert np.allclose(total[in_band], 1)
    assert (total[frequencies < 50] == 0).all()


@pytest.mark.parametrize("frequency", [250.0, 1000.0, 4000.0])
def test_a_tone_is_loudest_in_its_band_and_does_not_vary(frequency: float) -> None:
    result = LogMelStats().vector([tone(frequency, 1.0).astype(np.float32)])
    mean, deviation = result[:BANDS], result[BANDS:]
    assert np.argmax(mean) == np.argmax(mel_bands()[:, round(frequency * 512 / RATE)])
    assert deviation[np.argmax(mean)] < 0.01


def test_ten_times_as_loud_is_two_more_in_every_band() -> None:
    sound = np.random.default_rng(0).uniform(-0.05, 0.05, RATE).astype(np.float32)
    quiet, loud = (LogMelStats().vector([sound * factor]) for factor in (1, 10))
    assert np.allclose(loud[:BANDS] - quiet[:BANDS], 2, atol=1e-3)
    assert np.allclose(loud[BANDS:], quiet[BANDS:], atol=1e-3)


def test_silence_is_the_floor_and_a_sound_shorter_than_a_window_has_a_vector() -> None:
    encoder = LogMelStats()
    for count in (10, RATE):
        result = encoder.vector([np.zeros(count, dtype=np.float32)])
        assert np.array_equal(result, np.repeat([-10, 0], BANDS).astype(np.float32))


# ---------------------------------------------------------------- models of transformers


def of_file(encoder: SoundEncoder, data: bytes, folder: Path) -> np.ndarray:
    path = folder / "sound"
    path.write_bytes(data)
    return encoder.prepare(File(str(path), len(data), lambda key: Path(key).open("rb"), str(path)))


@pytest.mark.parametrize(("make", "pooling"), [(tiny_ast, "cls"), (tiny_wav2vec2, "mean")])
def test_the_vector_of_a_sound_is_the_mean_over_its_clips(
    make: Callable[[Path], Path], pooling: str, tmp_path: Path
) -> None:
    encoder = SoundModel(str(make(tmp_path / "model")), EncoderOptions(device="cpu"))
    encoder.seconds = 1.0
    assert encoder.metadata.pooling == f"{pooling}, mean over clips"
    assert "16000 Hz" in encoder.metadata.preprocess
    parts = [tone(f, s) for f, s in ((300, 1.0), (800, 1.0), (2000, 0.4))]
    alone = [of_file(encoder, wav(part), tmp_path) for part in parts]
    together = of_file(encoder, wav(np.concatenate(parts)), tmp_path)
    assert together.shape == (encoder.width,) == (WIDTH,)
    assert np.allclose(together, np.mean(alone, axis=0), atol=1e-4)
    assert np.abs(alone[0] - alone[1]).max() > 1e-3


def test_a_vision_model_is_not_an_audio_model(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="cannot be loaded|no model of sounds"):
        SoundModel(str(tiny_vit(tmp_path / "vit")), EncoderOptions(device="cpu"))


def test_an_unsupported_pooling_is_a_usage_error(tmp_path: Path) -> None:
    folder = str(tiny_wav2vec2(tmp_path / "model"))
    with pytest.raises(UsageError, match="no class token"):
        SoundModel(folder, EncoderOptions(device="cpu", pooling="cls"))
    with pytest.raises(UsageError, match="has no pooler; use --pooling mean"):
        SoundModel(folder, EncoderOptions(device="cpu", pooling="pooler"))
