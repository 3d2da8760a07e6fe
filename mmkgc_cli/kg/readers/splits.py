"""The files of the train, valid and test splits of a source."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from mmkgc_cli.errors import DataError, UsageError
from mmkgc_cli.kg.graph import SPLITS, Graph


def split_files(source: Path, suffixes: Sequence[str]) -> dict[str, Path]:
    """The files of a folder by split, or only ``train`` for a file or a folder without others.

    Raises:
        DataError: when train is missing, or valid or test alone, or a split has two files.
    """
    if not source.exists():
        raise DataError(f"{source}: no such file or folder", fix="check the path in --source")
    if source.is_file():
        return {"train": source}
    if not source.is_dir():
        raise DataError(f"{source}: is neither a file nor a folder", fix="save it to a file first")
    files: dict[str, Path] = {}
    for split in SPLITS:
        matches = [source / (split + suffix) for suffix in suffixes]
        matches = [path for path in matches if path.is_file()]
        if len(matches) > 1:
            raise DataError(
                f"{source}: contains both {matches[0].name} and {matches[1].name}",
                fix="remove one of the two",
            )
        if matches:
            files[split] = matches[0]

    def file_names(split: str) -> str:
        return " or ".join(split + suffix for suffix in suffixes)

    if "train" not in files:
        raise DataError(
            f"{source}: no {file_names('train')}",
            fix="add the file, or choose another --format",
        )
    if len(files) == 2:
        missing = next(split for split in SPLITS if split not in files)
        raise DataError(
            f"{source}: no {file_names(missing)} beside the other two splits",
            fix="add the file, or pass the path of one file and --split",
        )
    return files


def require_splits(graph: Graph, source: Path | str) -> None:
    """Refuses a graph without valid and test triples.

    Raises:
        UsageError: when both are empty.
    """
    if not len(graph.valid) and not len(graph.test):
        raise UsageError(
            f"{source}: has no valid and test triples",
            fix="pass --split with the three shares, for instance --split 0.8,0.1,0.1",
        )
