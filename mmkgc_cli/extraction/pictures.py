"""Decoding of pictures from untrusted bytes."""

from __future__ import annotations

import io
import struct
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import TYPE_CHECKING, TypeVar

import numpy as np

from mmkgc_cli.extraction.contract import Skip

if TYPE_CHECKING:
    from PIL.Image import Image
    from PIL.ImageFile import ImageFile

T = TypeVar("T")
# In pixels; more than cameras produce, and less than the limit of Pillow on decompression bombs.
MOST_PIXELS = 1 << 26
# Formats that Pillow decodes in this process; EPS, for example, would start Ghostscript.
FORMATS = (
    "AVIF", "BMP", "GIF", "ICO", "JPEG", "JPEG2000", "MPO", "PNG", "PPM", "TIFF", "WEBP",
)  # fmt: skip
_MAGICS = (b"GIF8", b"\x89PNG\r\n", b"\xff\xd8\xff", b"BM", b"II*\0", b"MM\0*")
_TEXTS = (b"<", b"{", b"%PDF", b"%!PS", b"version https://git-lfs")
DECODING = (
    "RGB; first frame; turned as EXIF says; transparent parts on white; 16 bits to 8; colour "
    "profiles not applied"
)


def is_picture(start: bytes) -> bool:
    """Whether the first bytes of a file are those of a picture or an animation."""
    return start.startswith(_MAGICS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def decode(data: bytes) -> Image:
    """Decodes a picture to 8-bit RGB; the content, not the file name, determines the format.

    Animations give their first frame. Grey, palette and CMYK are converted, 16 bits are rounded to
    8, transparency is composed on white, and the EXIF orientation is applied. Colour profiles are
    not applied.

    Raises:
        Skip: the data is not a picture, damaged or truncated, has more than 2^26 pixels or a side
            of one pixel, or has pixels without a defined range.
    """
    with _open_picture(data) as picture:
        picture.load()
        return _oriented_rgb(picture)


def decode_frames(
    data: bytes, choose: Callable[[int], Sequence[int]], keep: Callable[[Image], T]
) -> list[T]:
    """Decodes frames of an animation, each like a picture in `decode`; a picture has one frame.

    Args:
        data: contents of the file.
        choose: maps the number of frames to the frame numbers to decode.
        keep: converts a frame to the array to keep.

    Raises:
        Skip: as `decode`.
    """
    frames: dict[int, T] = {}
    with _open_picture(data) as picture:
        numbers = choose(getattr(picture, "n_frames", 1))
        for number in sorted(set(numbers)):
            picture.seek(number)
            frames[number] = keep(_oriented_rgb(picture.copy()))
    return [frames[number] for number in numbers]


@contextmanager
def _open_picture(data: bytes) -> Iterator[ImageFile]:
    """Opens a picture and checks its size; decoding errors become a `Skip`."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        # Warnings of Pillow do not matter here, except for decompression bombs.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=_known_formats()) as picture:
                _check_size(*picture.size)
                yield picture
        except (Skip, MemoryError):
            raise
        except UnidentifiedImageError:
            raise Skip(_not_a_picture(data)) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise Skip(f"has more than {MOST_PIXELS:,} pixels") from None
        except Exception as error:  # decoders raise many types on damaged data
            reason = " ".join(str(error).split()) or type(error).__name__
            raise Skip(f"damaged or truncated: {reason}") from None


def _oriented_rgb(picture: Image) -> Image:
    """Applies the EXIF orientation and converts to RGB."""
    from PIL import ImageOps

    _check_size(*picture.size)  # some formats hold several sizes and decode the largest
    # Invalid EXIF data does not affect the pixels.
    with suppress(SyntaxError, ValueError, LookupError, TypeError, OSError, struct.error):
        ImageOps.exif_transpose(picture, in_place=True)
    return _rgb(picture)


def _known_formats() -> list[str]:
    """The formats that this build of Pillow supports."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise Skip(f"has {width:,} x {height:,} pixels, more than {MOST_PIXELS:,}")
    if min(width, height) < 2:
        raise Skip(f"has {width} x {height} pixels, expected at least 2 x 2")


def _not_a_picture(data: bytes) -> str:
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(_TEXTS):
        return f"not a picture but text that starts with {start[:16].decode('latin-1')!r}"
    return f"not a picture in a known format (starts with {data[:8].hex(' ')})"


def _rgb(picture: Image) -> Image:
    from PIL import Image

    mode = picture.mode
    if mode.startswith("I"):
        picture = _eight_bits(picture)
    elif mode == "F":
        raise Skip("has floating-point pixels, which have no defined range")
    if "A" in picture.getbands() or mode in ("PA", "La") or "transparency" in picture.info:
        solid = picture.convert("RGBA")
        white = Image.new("RGBA", solid.size, "white")
        white.alpha_composite(solid)
        picture = white
    return picture.convert("RGB")


def _eight_bits(picture: Image) -> Image:
    """Scales 16-bit grey to 8 bits; Pillow would clip it at 255."""
    from PIL import Image

    grey = np.asarray(picture)
    if grey.min() < 0 or grey.max() > 0xFFFF:
        raise Skip("has 32-bit pixels, which have no defined range")
    wide = grey.astype(np.uint32) * 255 + 0x7FFF
    return Image.fromarray((wide // 0xFFFF).astype(np.uint8))
