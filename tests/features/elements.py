"""Small vectors for the built-in graph, made without a model or a network.

python -m tests.features.elements GRAPH OUT writes text.npy, image.npy and, for each, the ids of its
rows, which `mmkgc features import` takes.
"""

from __future__ import annotations

import sys
import zlib
from pathlib import Path

import numpy as np
from PIL import Image

TEXT_WIDTH, GRID = 256, 8


def text_vector(text: str) -> np.ndarray:
    """Hashed counts of character trigrams, at length 1."""
    vector = np.zeros(TEXT_WIDTH, dtype=np.float32)
    padded = f"  {text.casefold()}  "
    for i in range(len(padded) - 2):
        digest = zlib.crc32(padded[i : i + 3].encode())
        vector[digest % TEXT_WIDTH] += 1 if digest >> 31 else -1
    return vector / np.linalg.norm(vector)


def image_vector(path: Path) -> np.ndarray:
    """Mean colours of a grid, without those of an empty picture, at length 1."""
    with Image.open(path) as image:
        grid = np.asarray(image.convert("RGB").resize((GRID, GRID), Image.Resampling.BOX))
    vector = 1 - grid.astype(np.float32).ravel() / 255
    return vector / np.linalg.norm(vector)


def write(graph: Path, out: Path) -> None:
    """Vectors of all entities that have a text or a picture."""
    folder = graph / "modalities"
    for modality in ("text", "image"):
        table = (folder / f"{modality}.tsv").read_text(encoding="utf-8").splitlines()[1:]
        rows = [line.split("\t") for line in table]
        vectors = [
            text_vector(value) if modality == "text" else image_vector(folder / value)
            for _, value in rows
        ]
        np.save(out / f"{modality}.npy", np.stack(vectors))
        ids = "".join(f"{entity}\n" for entity, _ in rows)
        (out / f"{modality}.ids.txt").write_text(ids, encoding="utf-8")


if __name__ == "__main__":
    write(Path(sys.argv[1]), Path(sys.argv[2]))
