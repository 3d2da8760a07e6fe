"""Pictures from bytes that nobody vouches for."""

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
# Pixels; Pillow's own limit on bombs is a third higher, and this is more than cameras make.
MOST_PIXELS = 1 << 26
# Formats that are decoded in this process: EPS, for instance, would start Ghostscript.
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
    """Whether a file that starts so is a picture or an animation, and no video."""
    return start.startswith(_MAGICS) or (start[:4] == b"RIFF" and start[8:12] == b"WEBP")


def decode(data: bytes) -> Image:
    """A picture as RGB, 8 bits, told by its content, whatever its file is called.

    Of an animation the first frame. Grey, palette and CMYK are converted, 16 bits rounded to 8,
    what is transparent laid on white, and what EXIF says of turning done. Colour profiles are not
    applied.

    Raises:
        Skip: for what is no picture, is damaged or cut off, has more than 2^26 pixels or a side of
            one pixel, or whose numbers have no agreed range.
    """
    with _opened(data) as picture:
        picture.load()
        return _finished(picture)


def decode_frames(
    data: bytes, choose: Callable[[int], Sequence[int]], keep: Callable[[Image], T]
) -> list[T]:
    """Frames of an animation, each as `decode` has a picture; any other picture has one.

    Args:
        data: of the file.
        choose: the numbers of frames wanted, from how many there are.
        keep: makes what is kept of a frame.

    Raises:
        Skip: as `decode`.
    """
    found: dict[int, T] = {}
    with _opened(data) as picture:
        wanted = choose(getattr(picture, "n_frames", 1))
        for number in sorted(set(wanted)):
            picture.seek(number)
            found[number] = keep(_finished(picture.copy()))
    return [found[number] for number in wanted]


@contextmanager
def _opened(data: bytes) -> Iterator[ImageFile]:
    """A picture whose size was looked at; whatever is raised over it becomes a `Skip`."""
    from PIL import Image, UnidentifiedImageError

    with warnings.catch_warnings():
        # What Pillow warns of in passing is nobody's business here, but for bombs.
        warnings.simplefilter("ignore")
        warnings.simplefilter("error", Image.DecompressionBombWarning)
        try:
            with Image.open(io.BytesIO(data), formats=_known_formats()) as picture:
                _check_size(*picture.size)
                yield picture
        except (Skip, MemoryError):
            raise
        except UnidentifiedImageError:
            raise Skip(_no_picture(data)) from None
        except (Image.DecompressionBombWarning, Image.DecompressionBombError):
            raise Skip(f"has more than {MOST_PIXELS:,} pixels") from None
        except Exception as error:  # Pillow's decoders raise all kinds of things for damaged data
            words = " ".join(str(error).split()) or type(error).__name__
            raise Skip(f"damaged or cut off: {words}") from None


def _finished(picture: Image) -> Image:
    """A picture that is decoded, turned and in RGB."""
    from PIL import ImageOps

    _check_size(*picture.size)  # a format may hold several, and open the largest of them
    # What is wrong within EXIF says nothing of the pixels.
    with suppress(SyntaxError, ValueError, LookupError, TypeError, OSError, struct.error):
        ImageOps.exif_transpose(picture, in_place=True)
    return _rgb(picture)


def _known_formats() -> list[str]:
    """Those of `FORMATS` that this Pillow has; it may be built without some."""
    from PIL import Image

    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _check_size(width: int, height: int) -> None:
    if width * height > MOST_PIXELS:
        raise Skip(f"has {width:,} x {height:,} pixels, more than {MOST_PIXELS:,}")
    if min(width, height) < 2:
        raise Skip(f"has {width} x {height} pixels and shows nothing")


def _no_picture(data: bytes) -> str:
    start = data[:64].lstrip(b"\xef\xbb\xbf \t\r\n")
    if start.startswith(_TEXTS):
        return f"not a picture but text that begins {start[:16].decode('latin-1')!r}"
    return f"not a picture in a known format (begins {data[:8].hex(' ')})"


def _rgb(picture: Image) -> Image:
    from PIL import Image

    mode = picture.mode
    if mode.startswith("I"):
        picture = _eight_bits(picture)
    elif mode == "F":
        raise Skip("has floating-point pixels, which have no agreed range")
    if "A" in picture.getbands() or mode in ("PA", "La") or "transparency" in picture.info:
        solid = picture.convert("RGBA")
        white = Image.new("RGBA", solid.size, "white")
        white.alpha_composite(solid)
        picture = white
    return picture.convert("RGB")


def _eight_bits(picture: Image) -> Image:
    """Grey of 16 bits, which Pillow would cut off at 255."""
    from PIL import Image

    grey = np.asarray(picture)
    if grey.min() < 0 or grey.max() > 0xFFFF:
        raise Skip("has 32-bit pixels, which have no agreed range")
    wide = grey.astype(np.uint32) * 255 + 0x7FFF
    return Image.fromarray((wide // 0xFFFF).astype(np.uint8))
