"""Mean colours over a grid: a picture in numbers that need no model."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.extraction.contract import EncoderAbout
from mmkgc_cli.extraction.media import Array
from mmkgc_cli.extraction.picture_encoder import PictureEncoder
from mmkgc_cli.extraction.pictures import DECODING

if TYPE_CHECKING:
    from PIL.Image import Image

CELLS = 8  # a side
_LUMA = np.array([0.299, 0.587, 0.114])  # Rec. ITU-R BT.601-7, 2.5.1


class ColourGrid(PictureEncoder):
    """Red, green, blue and luminance, each the mean over a cell of 8 x 8, from 0 to 1.

    Cells are equal parts of the picture, whatever its size: a pixel across a border counts on both
    sides by its area. Row by row, and four numbers a cell; width 256.
    """

    def __init__(self) -> None:
        self.about = EncoderAbout(
            "colour-grid", "1", f"{DECODING}; no resizing",
            f"area means of red, green, blue and luminance (BT.601) over {CELLS} x {CELLS} cells",
        )  # fmt: skip
        self.width = CELLS * CELLS * 4

    def pixels(self, picture: Image) -> Array:
        """The vector itself."""
        pixels = np.asarray(picture)
        rows, columns = (_shares(n, CELLS) for n in pixels.shape[:2])
        cells = np.empty((CELLS, CELLS, 3))
        for i, (start, shares) in enumerate(rows):
            stripe = pixels[start : start + len(shares)].astype(np.float64)
            line = np.einsum("h,hwc->wc", shares, stripe)
            for j, (left, weights) in enumerate(columns):
                cells[i, j] = weights @ line[left : left + len(weights)]
        cells /= 255
        grid = np.concatenate([cells, (cells @ _LUMA)[..., None]], axis=2)
        return grid.reshape(-1).astype(np.float32)


def _shares(n: int, cells: int) -> list[tuple[int, NDArray[np.float64]]]:
    """For each cell the first of n pixels that it touches, and the shares of those in it."""
    result = []
    for cell in range(cells):
        # In whole numbers, `cells` to a pixel and n to a cell: no border is missed by rounding.
        start, end = cell * n, (cell + 1) * n
        first, last = start // cells, (end - 1) // cells
        edges = np.clip(np.arange(first, last + 2) * cells, start, end)
        result.append((first, (edges[1:] - edges[:-1]) / n))
    return result
