"""Files of entities: in a folder or an archive by name, or listed in an index."""

from __future__ import annotations

import hashlib
import os
import stat
import unicodedata
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path, PurePosixPath
from typing import IO, TypeVar
from urllib.parse import unquote

from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.extraction.contract import Input, InputOptions, InputSet, Skip, Skipped
from mmkgc_cli.extraction.members import is_archive, list_members
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.readers.lines import read_lines

T = TypeVar("T")
LARGEST = 1 << 28  # maximum bytes of a file that is read as a whole
_PIECE = 1 << 20
_SYSTEM_FILES = {"__macosx", "thumbs.db", "desktop.ini"}
_ENTITY_COLUMNS = ("entity", "id")
_FILE_COLUMNS = ("file", "path")
_ADDRESSES = ("http://", "https://", "ftp://", "s3://", "gs://")


@dataclass(frozen=True, slots=True)
class File:
    """A file on disk or in an archive."""

    origin: str  # location for messages
    size: int  # in bytes; 0 if the file does not exist
    opener: Callable[[str], IO[bytes]]
    key: str  # argument of `opener`

    def open(self) -> IO[bytes]:
        """Opens the file; the result is seekable.

        Raises:
            Skip: the file cannot be read or is empty.
        """
        file = self.opener(self.key)
        if not self.size:
            file.close()
            raise Skip("the file is empty")
        return file

    def read(self) -> bytes:
        """Reads the whole file.

        Raises:
            Skip: as `open`, or the file is larger than `LARGEST`.
        """
        if self.size > LARGEST:
            raise Skip(f"larger than {LARGEST >> 20:,} MiB")
        with self.open() as file:
            try:
                return file.read()
            except OSError as error:
                raise Skip(f"cannot be read: {_reason(error)}") from None


@dataclass(eq=False)
class Files:
    """The files of a graph's entities, skipped files, and names of other entities."""

    origin: str
    by_entity: dict[str, list[File]] = field(default_factory=dict)
    sha256: str = ""  # of the archive, if it is one
    preprocess: str = ""  # column of the index
    skipped: list[Skipped] = field(default_factory=list)
    outside: dict[str, None] = field(default_factory=dict)  # names that are not entities, in order

    def add(self, entity: str | None, name: str, file: File) -> None:
        """Adds a file of an entity; without an entity, adds its name to `outside`."""
        if entity is None:
            self.outside[name] = None
        else:
            self.by_entity.setdefault(entity, []).append(file)

    def to_input_set(self, load: Callable[[File], T]) -> InputSet[T]:
        """Converts each file to one input.

        Args:
            load: makes the input of a file; may raise Skip.
        """
        inputs = {
            entity: [Input(entity, file.origin, partial(load, file)) for file in files]
            for entity, files in self.by_entity.items()
        }
        return self.with_inputs(inputs)

    def with_inputs(self, inputs: Mapping[str, Sequence[Input[T]]]) -> InputSet[T]:
        """An `InputSet` of these inputs, with source, skipped files and other names."""
        return InputSet(
            inputs=inputs,
            source=f"{Path(self.origin).name} sha256 {self.sha256 or self._digest()}",
            preprocess=self.preprocess,
            skipped=tuple(self.skipped),
            outside=len(self.outside),
            outside_example=next(iter(self.outside), ""),
        )

    def _digest(self) -> str:
        """SHA-256 over entities in name order and the contents of their files."""
        digest = hashlib.sha256()
        for entity in sorted(self.by_entity):
            for file in self.by_entity[entity]:
                digest.update(f"{entity}\0{file.size}\0".encode())
                if file.size:
                    with suppress(Skip, OSError), file.open() as opened:
                        while piece := opened.read(_PIECE):
                            digest.update(piece)
        return digest.hexdigest()


def find_files(graph: Graph, options: InputOptions, noun: str, columns: Sequence[str]) -> Files:
    """Finds the files of a graph's entities.

    The source is a folder, an archive, or an index with lines ``entity<TAB>path``. In a folder or
    an archive, the innermost folder with the name of an entity decides, otherwise the file name
    without suffix. Names match as written, percent-decoded (`%2F`), in Unicode NFC, or as
    `m.0154j` for `/m/0154j`, in this order. Files of an entity are sorted by name; in an index
    they keep its order.

    Args:
        graph: the graph of the entities.
        options: the source, and the path column of an index.
        noun: what the files are, for messages.
        columns: header names of the path column besides `file` and `path`.

    Raises:
        DataError: the source cannot be read.
        UsageError: no source is given, or --columns does not apply to it.
    """
    source = options.path
    if source is None:
        raise UsageError(f"no source of {noun}", fix="add --input FOLDER, INDEX or ARCHIVE")
    names = _Names(graph.entities)
    is_folder = source.is_dir()
    try:
        packed = not is_folder and is_archive(source)
    except OSError as error:
        raise DataError(
            f"{source}: cannot be read: {_reason(error)}", fix="check --input"
        ) from None
    if options.columns and (is_folder or packed):
        raise UsageError(
            f"--columns: {source} is not an index, so it has no columns", fix="remove --columns"
        )
    if is_folder:
        return _in_folder(source, names)
    return _in_archive(source, names) if packed else _in_index(source, names, options, columns)


class _Names:
    """Finds the entity for the name of a file or folder."""

    def __init__(self, entities: Iterable[str]) -> None:
        self._entities = frozenset(entities)

    def knows(self, name: str) -> bool:
        return name in self._entities

    def entity(self, name: str) -> str | None:
        """The entity with this file or folder name, or None."""
        decoded = unquote(name, errors="strict") if "%" in name else name
        for spelling in (name, decoded, unicodedata.normalize("NFC", decoded)):
            if spelling in self._entities:
                return spelling
        freebase = "/" + name.replace(".", "/", 1)
        return freebase if freebase in self._entities else None

    def owner(self, path: PurePosixPath) -> tuple[str | None, str]:
        """The entity of a file, or None, and the part of the path that names it."""
        for folder in reversed(path.parts[:-1]):
            if (entity := self.entity(folder)) is not None:
                return entity, folder
        for name in (path.name, path.stem):
            if (entity := self.entity(name)) is not None:
                return entity, name
        return None, path.parts[-2] if len(path.parts) > 1 else path.stem


def _is_hidden(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _SYSTEM_FILES


def _in_folder(folder: Path, names: _Names) -> Files:
    files = Files(str(folder))
    try:
        for file in _walk(str(folder)):
            relative = Path(file.origin).relative_to(folder)
            files.add(*names.owner(PurePosixPath(relative.as_posix())), file)
    except OSError as error:
        raise DataError(
            f"{folder}: cannot be read: {_reason(error)}", fix="check its permissions"
        ) from None
    return files


def _walk(folder: str, ancestors: frozenset[tuple[int, int]] = frozenset()) -> Iterator[File]:
    """All files by name; skips folders that contain themselves through links."""
    status = Path(folder).stat()
    visited = ancestors | {(status.st_dev, status.st_ino)}
    if visited == ancestors:
        return
    with os.scandir(folder) as listing:
        entries = sorted(listing, key=lambda entry: entry.name)
    for entry in entries:
        if _is_hidden(entry.name):
            continue
        try:
            if not entry.is_dir():
                yield _file(entry.path)
                continue
            yield from _walk(entry.path, visited)
        except OSError as error:
            yield File(entry.path, 0, _refuse, f"cannot be read: {_reason(error)}")


def _file(path: str, note: str = "") -> File:
    try:
        size = Path(path).stat().st_size
    except (OSError, ValueError):  # reported when the file is opened
        size = 0
    return File(path + note, size, _open, path)


def _open(path: str) -> IO[bytes]:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise Skip("not a regular file")
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise Skip(f"cannot be read: {_reason(error)}") from None


def _refuse(reason: str) -> IO[bytes]:
    raise Skip(reason)


def _reason(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return reason[:1].lower() + reason[1:]


def _in_archive(archive: Path, names: _Names) -> Files:
    files = Files(str(archive))
    listing = list_members(archive)
    for name in sorted(listing.sizes):
        path = PurePosixPath(name)
        if not path.parts or any(_is_hidden(part) for part in path.parts):
            continue
        entity, name_used = names.owner(path)
        origin = f"{archive}!{name}"
        files.add(entity, name_used, File(origin, listing.sizes[name], listing.open, name))
    for name, reason in listing.refused:
        entity, _ = names.owner(PurePosixPath(name)) if name.strip("/") else (None, "")
        files.skipped.append(Skipped(entity or "", f"{archive}!{name}", f"refused: {reason}"))
    with archive.open("rb") as file:
        files.sha256 = hashlib.file_digest(file, "sha256").hexdigest()
    return files


def _in_index(index: Path, names: _Names, options: InputOptions, columns: Sequence[str]) -> Files:
    files = Files(str(index))
    layout: _Columns | None = None
    for number, line in read_lines(index):
        cells = [cell.strip() for cell in line.split("\t")]
        location = f"{index}:{number}"
        if layout is None:
            layout = _columns(location, cells, names, options.columns, (*_FILE_COLUMNS, *columns))
            files.preprocess = layout.description
            if layout.header:
                continue
        if len(cells) <= max(layout.entity, layout.path):
            raise DataError(
                f"{location}: {line[:80]!r} has too few columns",
                fix="write an entity and a path, separated by a tab",
            )
        entity, path = cells[layout.entity], cells[layout.path]
        note = f" ({index.name}:{number})"
        if not names.knows(entity):
            files.outside[entity] = None
        elif path.startswith(_ADDRESSES):
            url = File(path + note, 0, _refuse, "is a URL; download the file first")
            files.add(entity, entity, url)
        elif path:
            for file in _indexed_files(index, path, note):
                files.add(entity, entity, file)
    return files


@dataclass(frozen=True)
class _Columns:
    entity: int
    path: int
    header: bool
    description: str


def _columns(
    location: str,
    cells: Sequence[str],
    names: _Names,
    columns: Sequence[str],
    defaults: Sequence[str],
) -> _Columns:
    """Finds the columns of entities and paths from the first line of an index."""
    lower = [cell.casefold() for cell in cells]
    if len(cells) < 2:
        raise DataError(
            f"{location}: one column, expected an entity and a path",
            fix="separate them with a tab",
        )
    if len(columns) > 1:
        raise UsageError("--columns: an index has one path column", fix="give one column")
    if columns and columns[0].isascii() and columns[0].isdigit():
        if not 2 <= int(columns[0]) <= len(cells):
            raise UsageError(
                f"--columns {columns[0]}: {location} has {len(cells)} columns",
                fix=f"give a number from 2 to {len(cells)}",
            )
        header = not names.knows(cells[0]) and lower[0] in _ENTITY_COLUMNS
        return _Columns(0, int(columns[0]) - 1, header, f"column {columns[0]}")
    if columns and columns[0] not in cells[1:]:
        raise UsageError(
            f"--columns {columns[0]}: {location} has no such column",
            fix=nearest(columns[0], cells[1:]),
        )
    matches = [name for name in (columns or defaults) if name in (cells if columns else lower)[1:]]
    if matches and not names.knows(cells[0]):
        entity = next((lower.index(name) for name in _ENTITY_COLUMNS if name in lower), 0)
        path = (cells if columns else lower).index(matches[0], 1)
        return _Columns(entity, path, True, f"column {cells[path]}")
    if len(cells) > 2:
        raise DataError(
            f"{location}: {len(cells)} columns and no header with "
            f"{', '.join(defaults[:-1])} or {defaults[-1]}",
            fix="select the path column, for example with --columns 2",
        )
    return _Columns(0, 1, False, "")


def _indexed_files(index: Path, name: str, note: str) -> Iterator[File]:
    """The file with this path in an index, or all files if it is a folder."""
    path = index.parent / name
    try:
        if path.is_dir():
            # A slip such as ``..`` or ``/`` must not list the whole disk.
            if path.resolve() in index.resolve().parents[1:]:
                yield File(str(path) + note, 0, _refuse, "is a folder above the index")
                return
            for file in _walk(str(path)):
                yield replace(file, origin=file.origin + note)
            return
    except (OSError, ValueError):  # reported when the file is opened
        pass
    yield _file(str(path), note)
