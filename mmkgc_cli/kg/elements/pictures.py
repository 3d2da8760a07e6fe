"""Drawings of the electron shells of atoms."""

from __future__ import annotations

from collections.abc import Sequence
from math import cos, pi, sin
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from PIL.Image import Image

_OVERSAMPLING = 4
_BACKGROUND = (250, 249, 246)
_RING = (188, 196, 206)
_INNER = (52, 84, 122)
_OUTER = (222, 98, 44)
_NUCLEUS = (128, 40, 62)
_NUCLEUS_SHINE = (186, 92, 112)


def draw_shells(shells: Sequence[int], size: int = 160) -> Image:
    """Draws an electron-shell diagram: a nucleus, a ring per shell, and a dot per electron.

    The outermost shell has an accent colour, and the nucleus grows slowly with the number of
    electrons. The same arguments give the same pixels. The picture contains no text.

    Args:
        shells: electrons per shell, innermost first.
        size: width and height of the picture in pixels.

    Raises:
        ValueError: if `shells` is empty or has a shell without electrons, or `size` is too small.
    """
    from PIL import Image, ImageDraw

    if not shells or min(shells) < 1:
        raise ValueError(f"draw_shells: shells must be counts of at least 1, got {list(shells)!r}")
    if size < 16:
        raise ValueError(f"draw_shells: size must be at least 16, got {size}")

    side = size * _OVERSAMPLING
    centre = side / 2
    image = Image.new("RGB", (side, side), _BACKGROUND)
    pen = ImageDraw.Draw(image)

    def disc(x: float, y: float, radius: float, colour: tuple[int, int, int]) -> None:
        pen.ellipse((x - radius, y - radius, x + radius, y + radius), fill=colour)

    nucleus = side * (0.04 + 0.004 * sum(shells) ** 0.5)
    outermost = side * 0.455
    # Few shells stay close to the nucleus, so that a light atom also looks small.
    step = min((outermost - nucleus) / len(shells), side * 0.105)
    for number, electrons in enumerate(shells, start=1):
        is_outermost = number == len(shells)
        radius = nucleus + number * step
        line = max(1, round(side * 0.006))
        box = (centre - radius, centre - radius, centre + radius, centre + radius)
        pen.ellipse(box, outline=_RING, width=line)
        spacing = 2 * pi * radius / electrons
        dot = min(side * (0.021 if is_outermost else 0.017), spacing * 0.4)
        # Alternate shells start half a spacing apart, so that dots do not align in rows.
        start = -pi / 2 + ((len(shells) - number) % 2) * pi / electrons
        for electron in range(electrons):
            angle = start + 2 * pi * electron / electrons
            x, y = centre + radius * cos(angle), centre + radius * sin(angle)
            disc(x, y, dot, _OUTER if is_outermost else _INNER)
    disc(centre, centre, nucleus, _NUCLEUS)
    disc(centre - nucleus * 0.3, centre - nucleus * 0.3, nucleus * 0.28, _NUCLEUS_SHINE)
    return image.resize((size, size), Image.Resampling.LANCZOS)
