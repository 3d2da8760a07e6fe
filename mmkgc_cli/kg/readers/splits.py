"""Which files of a source hold which split."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.graph import SPLITS, Graph


def split_files(source: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files of a folder's splits by name, or ``train`` alone for a file or a lone train.

    Raises:
        DataError: when there is no train, one of valid and test alone, or two files for a split.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder")
    if source.is_file():
        return {"train": source}
    if not source.is_dir():
        raise DataError(f"{source}: is neither a file nor a folder; save it to a file first")
    found: dict[str, Path] = {}
    for split in SPLITS:
        matches = [source / (split + suffix) for suffix in suffixes]
        matches = [path for path in matches if path.is_file()]
        if len(matches) > 1:
            raise DataError(f"{source}: both {matches[0].name} and {matches[1].name} are there")
        if matches:
            found[split] = matches[0]

    def expected(split: str) -> str:
        return " or ".join(split + suffix for suffix in suffixes)

    if "train" not in found:
        raise DataError(f"{source}: no {expected('train')}; expected train, valid and test")
    if len(found) == 2:
        missing = next(split for split in SPLITS if split not in found)
        raise DataError(f"{source}: no {expected(missing)} beside the other two splits")
    return found


def require_splits(graph: Graph, source: Path | str) -> None:
    """Refuses a graph that came as one list of triples when no split was asked for.

    Raises:
        UsageError: naming the option to give.
    """
    if not len(graph.valid) and not len(graph.test):
        raise UsageError(
            f"{source}: one list of triples; say how to split it, for instance --split 0.8,0.1,0.1"
        )
