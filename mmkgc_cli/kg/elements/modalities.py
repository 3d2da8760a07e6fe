"""Texts, numbers and pictures of the built-in graph, written as files beside ``graph.h5``."""

from __future__ import annotations

import io
from pathlib import Path

from mmkgc_cli.kg import elements
from mmkgc_cli.kg.elements.pictures import draw_shells
from mmkgc_cli.state.atomic import write_bytes, write_text


def write_modalities(folder: Path) -> None:
    """Writes ``text.tsv``, ``numeric.tsv``, ``image.tsv`` and the pictures that it lists.

    An entity without a text, a number or a picture has no row in that file.

    Raises:
        DataError: when a file cannot be written.
    """
    texts = [f"{entity}\t{text}" for entity, text in elements.texts().items()]
    write_text(folder / "text.tsv", _table("entity\ttext", texts))
    numbers = [f"{entity}\t{key}\t{value!r}" for entity, key, value in elements.numerics()]
    write_text(folder / "numeric.tsv", _table("entity\tattribute\tvalue", numbers))
    pictures = []
    for entity, shells in elements.shells().items():
        image = io.BytesIO()
        draw_shells(shells).save(image, format="PNG", optimize=True)
        write_bytes(folder / "image" / f"{entity}.png", image.getvalue())
        pictures.append(f"{entity}\timage/{entity}.png")
    write_text(folder / "image.tsv", _table("entity\tfile", pictures))


def _table(header: str, rows: list[str]) -> str:
    return "\n".join([header, *rows]) + "\n"
