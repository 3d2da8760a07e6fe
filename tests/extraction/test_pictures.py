"""Pictures from bytes: what comes out in RGB, and what is refused with a reason."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from mmkgc_cli.extraction.contract import Skip
from mmkgc_cli.extraction.pictures import MOST_PIXELS, decode, decode_frames


def encoded(picture: Image.Image, format_name: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    picture.save(file, format_name, **options)
    return file.getvalue()


def noise(width: int, height: int, seed: int = 0) -> Image.Image:
    values = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return Image.fromarray(values)


def png(width: int, height: int, data: bytes = b"") -> bytes:
    """An RGB PNG with any size in its header."""

    def chunk(tag: bytes, body: bytes) -> bytes:
        return struct.pack(">I", len(body)) + tag + body + struct.pack(">I", zlib.crc32(tag + body))

    header = struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0)
    parts = [chunk(b"IHDR", header), chunk(b"IDAT", zlib.compress(data)), chunk(b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


@pytest.mark.parametrize("format_name", ["PNG", "BMP", "TIFF", "WEBP", "PPM"])
def test_formats_without_loss_give_the_pixels_that_were_put_in(format_name: str) -> None:
    picture = noise(31, 17)
    options = {"lossless": True} if format_name == "WEBP" else {}
    assert np.array_equal(
        np.asarray(decode(encoded(picture, format_name, **options))), np.asarray(picture)
    )


@pytest.mark.parametrize("mode", ["1", "L", "P", "LA", "RGBA", "CMYK", "YCbCr", "I;16", "HSV"])
def test_every_mode_becomes_rgb_of_the_same_colour(mode: str) -> None:
    """White is white in all modes."""
    white = Image.new("RGB", (8, 8), "white")
    picture = Image.new("I;16", (8, 8), 0xFFFF) if mode == "I;16" else white.convert(mode)
    format_name = "TIFF" if mode in ("CMYK", "YCbCr") else "PNG"
    if mode == "HSV":
        picture = white.convert("HSV").convert("RGB")
    result = decode(encoded(picture, format_name))
    assert result.mode == "RGB"
    assert (np.asarray(result) == 255).all()


def test_cmyk_jpegs_are_converted() -> None:
    result = decode(encoded(Image.new("CMYK", (16, 16), (0, 255, 255, 0)), "JPEG", quality=100))
    assert result.mode == "RGB"
    red, green, blue = np.asarray(result).reshape(-1, 3).mean(axis=0)
    assert red > 200 > 60 > max(green, blue)


def test_sixteen_bits_are_scaled_and_not_clipped() -> None:
    """Pillow's own conversion would make every value above 255 white."""
    levels = np.linspace(0, 0xFFFF, 64, dtype=np.uint16).reshape(8, 8)
    result = np.asarray(decode(encoded(Image.fromarray(levels))))[..., 0]
    assert np.array_equal(result, np.floor(levels / 257.0 + 0.5).astype(np.uint8))


@pytest.mark.parametrize("alpha", [0, 64, 255])
def test_transparency_is_composed_on_white(alpha: int) -> None:
    picture = Image.new("RGBA", (4, 4), (200, 0, 40, alpha))
    expected = [c * alpha / 255 + 255 * (1 - alpha / 255) for c in (200, 0, 40)]
    result = np.asarray(decode(encoded(picture))).reshape(-1, 3)
    assert np.abs(result - np.array(expected)).max() <= 1


def test_a_transparent_colour_of_a_palette_is_white() -> None:
    picture = Image.new("P", (4, 4), 1)
    picture.putpalette([0, 0, 0, 10, 20, 30])
    assert (np.asarray(decode(encoded(picture, transparency=1))) == 255).all()
    assert (np.asarray(decode(encoded(picture))) == (10, 20, 30)).all()


def test_the_exif_orientation_is_applied() -> None:
    picture = noise(6, 4)
    exif = Image.Exif()
    exif[0x0112] = 6  # a quarter to the right
    result = decode(encoded(picture, exif=exif))
    assert result.size == (4, 6)
    assert np.array_equal(np.asarray(result), np.rot90(np.asarray(picture), -1))


def test_exif_that_is_damaged_changes_nothing() -> None:
    picture = noise(6, 4)
    data = encoded(picture, exif=b"Exif\0\0II*\0\xff\xff\xff\xff")
    assert np.array_equal(np.asarray(decode(data)), np.asarray(picture))


def animation(colours: list[str], format_name: str = "GIF") -> bytes:
    frame, *other_frames = (Image.new("RGB", (8, 8), colour) for colour in colours)
    options: dict[str, Any] = {"lossless": True} if format_name == "WEBP" else {}
    return encoded(
        frame, format_name, save_all=True, append_images=other_frames, duration=50, **options
    )


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG"])
def test_an_animation_gives_its_first_frame(format_name: str) -> None:
    result = decode(animation(["red", "green", "blue"], format_name))
    assert np.asarray(result)[0, 0].tolist() == [255, 0, 0]


@pytest.mark.parametrize("format_name", ["GIF", "WEBP", "PNG"])
def test_frames_have_the_requested_order(format_name: str) -> None:
    data = animation(["red", "lime", "blue", "white"], format_name)
    totals: list[int] = []

    def choose(total: int) -> list[int]:
        totals.append(total)
        return [2, 0, 0, 3]

    result = [frame[0, 0].tolist() for frame in decode_frames(data, choose, np.asarray)]
    assert totals == [4]
    assert result == [[0, 0, 255], [255, 0, 0], [255, 0, 0], [255, 255, 255]]


def test_other_kinds_of_pictures_have_one_frame() -> None:
    (result,) = decode_frames(encoded(noise(5, 5)), lambda n: [n - 1], np.asarray)
    assert np.array_equal(result, np.asarray(noise(5, 5)))


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        (b"GIF89a", "damaged or truncated|not a picture"),
        (b"plain words", "not a picture in a known format .starts with 70 6c 61"),
        (b"<!DOCTYPE html><html>", "not a picture but text that starts with '<!DOCTYPE html>"),
        (b"<svg xmlns='x'/>", "not a picture but text"),
        (b"version https://git-lfs.github.com/spec/v1\n", "but text that starts with .version"),
        (b"%!PS-Adobe-3.0 EPSF-3.0\n", "not a picture but text"),
        (encoded(Image.new("RGB", (1, 1))), "1 x 1 pixels, expected at least 2 x 2"),
        (encoded(Image.new("RGB", (1, 90))), "1 x 90 pixels, expected at least 2 x 2"),
        (png(100_000, 100_000), "has more than|100,000 x 100,000 pixels, more than 67,108,864"),
        (png(8_193, 8_192), "8,193 x 8,192 pixels, more than 67,108,864"),
        (png(64, 64, b"\0" * 9), "damaged or truncated"),
        (encoded(Image.fromarray(np.zeros((4, 4), np.float32)), "TIFF"), "floating-point"),
        (encoded(Image.fromarray(np.full((4, 4), 70_000, np.int32)), "TIFF"), "32-bit"),
    ],
)  # fmt: skip
def test_unusable_data_is_skipped_with_the_reason(data: bytes, reason: str) -> None:
    with pytest.raises(Skip, match=reason) as caught:
        decode(data)
    assert "\n" not in str(caught.value)


def test_the_limit_on_pixels_is_below_that_of_pillow() -> None:
    limit = Image.MAX_IMAGE_PIXELS
    assert limit is not None
    assert limit > MOST_PIXELS


@pytest.mark.parametrize("format_name", ["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP"])
def test_a_truncated_picture_is_skipped_or_the_same(format_name: str) -> None:
    data = encoded(noise(40, 30), format_name)
    expected = np.asarray(decode(data))
    for end in range(0, len(data), max(1, len(data) // 60)):
        try:
            result = np.asarray(decode(data[:end]))
        except Skip:
            continue
        # Nothing but what stands behind the pixels may be missing.
        assert np.array_equal(result, expected), (format_name, end, len(data))


@given(st.data())
def test_damaged_data_only_raises_skip(data: st.DataObject) -> None:
    format_name = data.draw(st.sampled_from(["PNG", "JPEG", "GIF", "WEBP", "TIFF", "BMP", "ICO"]))
    result = bytearray(encoded(noise(24, 24), format_name))
    for _ in range(data.draw(st.integers(1, 4))):
        offset = data.draw(st.integers(0, len(result) - 1))
        result[offset] = data.draw(st.integers(0, 255))
    try:
        assert decode(bytes(result)).mode == "RGB"
    except Skip as reason:
        assert str(reason)
