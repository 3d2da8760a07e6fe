"""The pictures of entities."""

from __future__ import annotations

from mmkgc_cli.extraction.contract import Found, InputOptions
from mmkgc_cli.extraction.files import File, find_files
from mmkgc_cli.extraction.media import Medium
from mmkgc_cli.kg.graph import Graph

COLUMNS = ("image", "picture", "photo")


def find(graph: Graph, options: InputOptions) -> Found[Medium[File]]:
    """Pictures in a folder, an index or an archive (`files.find_files`).

    Raises:
        DataError: when there is no such source, or it cannot be read at all.
        UsageError: for columns that it cannot have.
    """
    return find_files(graph, options, "pictures", COLUMNS).found(Medium)
