"""The videos of entities."""

from __future__ import annotations

import re
from pathlib import PurePosixPath

from mmkgc_cli.extraction.contract import Found, Input, InputOptions
from mmkgc_cli.extraction.files import File, find_files
from mmkgc_cli.extraction.media import Medium
from mmkgc_cli.extraction.videos import Clip
from mmkgc_cli.kg.graph import Graph

COLUMNS = ("video", "clip", "frames")
# Several of these in one folder are the frames of one video; a GIF is a video of its own.
_FRAMES = {".png", ".jpg", ".jpeg", ".bmp", ".tif", ".tiff", ".ppm"}
_DIGITS = re.compile(r"(\d+)")


def find(graph: Graph, options: InputOptions) -> Found[Medium[Clip]]:
    """Videos in a folder, an index or an archive (`files.find_files`).

    Pictures of an entity that lie in one folder are the frames of one video, by the numbers in
    their names.

    Raises:
        DataError: when there is no such source, or it cannot be read at all.
        UsageError: for columns that it cannot have.
    """
    files = find_files(graph, options, "videos", COLUMNS)
    inputs = {}
    for entity, found in files.of.items():
        clips: dict[str, list[File]] = {}
        for file in found:
            path = PurePosixPath(file.key)
            is_frame = path.suffix.casefold() in _FRAMES
            clips.setdefault(f"{path.parent}/" if is_frame else file.key, []).append(file)
        inputs[entity] = [_input(entity, sorted(parts, key=_number)) for parts in clips.values()]
    return files.as_found(inputs)


def _input(entity: str, files: list[File]) -> Input[Medium[Clip]]:
    clip = Clip(tuple(files))
    more = f" and {len(files) - 1:,} more" if len(files) > 1 else ""
    return Input(entity, files[0].origin + more, lambda: Medium(clip))


def _number(file: File) -> list[tuple[int, str]]:
    """Sorts frame 2 before frame 10."""
    parts = _DIGITS.split(file.key)
    return [(int(part), "") if i % 2 else (0, part) for i, part in enumerate(parts)]
