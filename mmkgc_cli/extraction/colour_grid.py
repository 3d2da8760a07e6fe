"""Mean colours of a grid: a picture encoder without weights."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from mmkgc_cli.extraction.contract import EncoderMetadata
from mmkgc_cli.extraction.media import Array, PictureEncoder
from mmkgc_cli.extraction.pictures import DECODING

if TYPE_CHECKING:
    from PIL.Image import Image

CELLS = 8  # per side
_LUMA = np.array([0.299, 0.587, 0.114])  # Rec. ITU-R BT.601-7, 2.5.1


class ColourGrid(PictureEncoder):
    """Means of red, green, blue and luminance over an 8 x 8 grid of cells, from 0 to 1.

    Cells have equal size; a pixel on a border counts for both cells in proportion to its area.
    Cells are in row order, with four numbers each; width 256.
    """

    def __init__(self) -> None:
        self.metadata = EncoderMetadata(
            "colour-grid", "1", f"{DECODING}; no resizing",
            f"area means of red, green, blue and luminance (BT.601) over {CELLS} x {CELLS} cells",
        )  # fmt: skip
        self.width = CELLS * CELLS * 4

    def pixels(self, picture: Image) -> Array:
        """The vector ``[256]``."""
        pixels = np.asarray(picture)
        rows, columns = (_cell_weights(n, CELLS) for n in pixels.shape[:2])
        cells = np.empty((CELLS, CELLS, 3))
        for i, (top, row_weights) in enumerate(rows):
            stripe = pixels[top : top + len(row_weights)].astype(np.float64)
            line = np.einsum("h,hwc->wc", row_weights, stripe)
            for j, (left, weights) in enumerate(columns):
                cells[i, j] = weights @ line[left : left + len(weights)]
        cells /= 255
        grid = np.concatenate([cells, (cells @ _LUMA)[..., None]], axis=2)
        return grid.reshape(-1).astype(np.float32)


def _cell_weights(n: int, cells: int) -> list[tuple[int, NDArray[np.float64]]]:
    """For each cell, the first of n pixels that overlaps it, and the weights of its pixels."""
    result = []
    for cell in range(cells):
        # Integer units, `cells` per pixel and n per cell, so that borders are exact.
        start, end = cell * n, (cell + 1) * n
        first, last = start // cells, (end - 1) // cells
        edges = np.clip(np.arange(first, last + 2) * cells, start, end)
        result.append((first, (edges[1:] - edges[:-1]) / n))
    return result
