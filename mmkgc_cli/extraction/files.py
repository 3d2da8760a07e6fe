"""Which files belong to which entity: by folder, by name, by an index, or within an archive."""

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
from mmkgc_cli.extraction.contract import Found, Input, InputOptions, Skip, Skipped
from mmkgc_cli.extraction.members import is_archive, members
from mmkgc_cli.kg.graph import Graph
from mmkgc_cli.kg.readers.lines import read_lines

T = TypeVar("T")
LARGEST = 1 << 28  # bytes of a file that is read as a whole
_PIECE = 1 << 20
_LITTER = {"__macosx", "thumbs.db", "desktop.ini"}  # what systems leave behind in folders
_ENTITY_COLUMNS = ("entity", "id")
_FILE_COLUMNS = ("file", "path")
_ADDRESSES = ("http://", "https://", "ftp://", "s3://", "gs://")


@dataclass(frozen=True, slots=True)
class File:
    """A file, on the disk or in an archive."""

    origin: str  # for messages
    size: int  # in bytes; 0 where there is no such file
    opener: Callable[[str], IO[bytes]]
    key: str  # for `opener`

    def open(self) -> IO[bytes]:
        """Opens it; the result can seek.

        Raises:
            Skip: when it cannot be read, or is empty.
        """
        file = self.opener(self.key)
        if not self.size:
            file.close()
            raise Skip("the file is empty")
        return file

    def read(self) -> bytes:
        """All of it.

        Raises:
            Skip: as `open`, or when it is too large to be held.
        """
        if self.size > LARGEST:
            raise Skip(f"larger than {LARGEST >> 20:,} MiB")
        with self.open() as file:
            try:
                return file.read()
            except OSError as error:
                raise Skip(f"cannot be read: {_words(error)}") from None


@dataclass(eq=False)
class Files:
    """The files of a graph's entities, and what was seen on the way to them."""

    origin: str
    of: dict[str, list[File]] = field(default_factory=dict)
    sha256: str = ""  # of the archive, where it is one
    preprocess: str = ""  # which column of an index
    skipped: list[Skipped] = field(default_factory=list)
    outside: dict[str, None] = field(default_factory=dict)  # names of no entity, in order

    def add(self, entity: str | None, name: str, file: File) -> None:
        """Notes a file of an entity, or one whose name is no entity."""
        if entity is None:
            self.outside[name] = None
        else:
            self.of.setdefault(entity, []).append(file)

    def found(self, load: Callable[[File], T]) -> Found[T]:
        """One input a file.

        Args:
            load: makes the input of a file; raises Skip.
        """
        inputs = {
            entity: [Input(entity, file.origin, partial(load, file)) for file in files]
            for entity, files in self.of.items()
        }
        return self.as_found(inputs)

    def as_found(self, inputs: Mapping[str, Sequence[Input[T]]]) -> Found[T]:
        """These inputs, with what else was seen."""
        return Found(
            inputs=inputs,
            source=f"{Path(self.origin).name} sha256 {self.sha256 or self._digest()}",
            preprocess=self.preprocess,
            skipped=tuple(self.skipped),
            outside=len(self.outside),
            outside_example=next(iter(self.outside), ""),
        )

    def _digest(self) -> str:
        """SHA-256 over entities, in the order of their names, and the bytes of their files."""
        whole = hashlib.sha256()
        for entity in sorted(self.of):
            for file in self.of[entity]:
                whole.update(f"{entity}\0{file.size}\0".encode())
                if file.size:
                    with suppress(Skip, OSError), file.open() as opened:
                        while piece := opened.read(_PIECE):
                            whole.update(piece)
        return whole.hexdigest()


def find_files(graph: Graph, options: InputOptions, kind: str, columns: Sequence[str]) -> Files:
    """The files of a graph's entities.

    The source is a folder or an archive, where a file belongs to the entity that the innermost of
    its folders is called after, or else the file itself without its suffix; or an index, lines of
    an entity and a path by tab. Names are taken as they are, with `%2F` and the like decoded, in
    Unicode's composed form, or as `m.0154j` for `/m/0154j`, whichever is an entity first. Files of
    an entity are ordered by name, in an index as they stand there.

    Args:
        graph: whose entities count.
        options: the source, and the column of an index that holds paths.
        kind: what is looked for, for messages.
        columns: what that column may be called, besides `file` and `path`.

    Raises:
        DataError: when the source cannot be read at all.
        UsageError: without a source, or for columns that it cannot have.
    """
    source = options.path
    if source is None:
        raise UsageError(f"say where the {kind} are with --input FOLDER, INDEX or ARCHIVE")
    names = _Names(graph.entities)
    is_folder = source.is_dir()
    try:
        packed = not is_folder and is_archive(source)
    except OSError as error:
        raise DataError(f"{source}: cannot be read: {_words(error)}") from None
    if options.columns and (is_folder or packed):
        raise UsageError(f"--columns: {source} is no index, so it has no columns")
    if is_folder:
        return _in_folder(source, names)
    return _in_archive(source, names) if packed else _in_index(source, names, options, columns)


class _Names:
    """Entities by what files and folders may be called for them."""

    def __init__(self, entities: Iterable[str]) -> None:
        self._entities = frozenset(entities)

    def knows(self, name: str) -> bool:
        return name in self._entities

    def entity(self, name: str) -> str | None:
        """The entity that a file or folder is called after."""
        decoded = unquote(name, errors="strict") if "%" in name else name
        for spelling in (name, decoded, unicodedata.normalize("NFC", decoded)):
            if spelling in self._entities:
                return spelling
        freebase = "/" + name.replace(".", "/", 1)
        return freebase if freebase in self._entities else None

    def owner(self, path: PurePosixPath) -> tuple[str | None, str]:
        """The entity of a file, or None, and what it was, or would have to be, called."""
        for folder in reversed(path.parts[:-1]):
            if (entity := self.entity(folder)) is not None:
                return entity, folder
        for name in (path.name, path.stem):
            if (entity := self.entity(name)) is not None:
                return entity, name
        return None, path.parts[-2] if len(path.parts) > 1 else path.stem


def _is_litter(name: str) -> bool:
    return name.startswith(".") or name.casefold() in _LITTER


def _in_folder(folder: Path, names: _Names) -> Files:
    files = Files(str(folder))
    try:
        for file in _walk(str(folder)):
            inside = Path(file.origin).relative_to(folder)
            files.add(*names.owner(PurePosixPath(inside.as_posix())), file)
    except OSError as error:
        raise DataError(f"{folder}: cannot be read: {_words(error)}") from None
    return files


def _walk(folder: str, above: frozenset[tuple[int, int]] = frozenset()) -> Iterator[File]:
    """All files by name; a folder that holds itself through links is left."""
    status = Path(folder).stat()
    here = above | {(status.st_dev, status.st_ino)}
    if here == above:
        return
    with os.scandir(folder) as listing:
        inside = sorted(listing, key=lambda entry: entry.name)
    for entry in inside:
        if _is_litter(entry.name):
            continue
        try:
            if not entry.is_dir():
                yield _file(entry.path)
                continue
            yield from _walk(entry.path, here)
        except OSError as error:
            yield File(entry.path, 0, _refuse, f"cannot be read: {_words(error)}")


def _file(path: str, note: str = "") -> File:
    try:
        size = Path(path).stat().st_size
    except (OSError, ValueError):  # said when it is opened
        size = 0
    return File(path + note, size, _open, path)


def _open(path: str) -> IO[bytes]:
    try:
        if not stat.S_ISREG(Path(path).stat().st_mode):
            raise Skip("not a plain file")
        return Path(path).open("rb")
    except (OSError, ValueError) as error:
        raise Skip(f"cannot be read: {_words(error)}") from None


def _refuse(reason: str) -> IO[bytes]:
    raise Skip(reason)


def _words(error: Exception) -> str:
    reason = getattr(error, "strerror", None) or str(error)
    return reason[:1].lower() + reason[1:]


def _in_archive(archive: Path, names: _Names) -> Files:
    files = Files(str(archive))
    listed = members(archive)
    for name in sorted(listed.sizes):
        path = PurePosixPath(name)
        if not path.parts or any(_is_litter(part) for part in path.parts):
            continue
        entity, called = names.owner(path)
        origin = f"{archive}!{name}"
        files.add(entity, called, File(origin, listed.sizes[name], listed.open, name))
    for name, reason in listed.refused:
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
        place = f"{index}:{number}"
        if layout is None:
            layout = _columns(place, cells, names, options.columns, (*_FILE_COLUMNS, *columns))
            files.preprocess = layout.about
            if layout.header:
                continue
        if len(cells) <= max(layout.entity, layout.path):
            raise DataError(f"{place}: expected an entity and a path by tab, found {line[:80]!r}")
        entity, path = cells[layout.entity], cells[layout.path]
        note = f" ({index.name}:{number})"
        if not names.knows(entity):
            files.outside[entity] = None
        elif path.startswith(_ADDRESSES):
            refused = File(path + note, 0, _refuse, "an address: download it first")
            files.add(entity, entity, refused)
        elif path:
            for file in _named(index.parent / path, note):
                files.add(entity, entity, file)
    return files


@dataclass(frozen=True)
class _Columns:
    entity: int
    path: int
    header: bool
    about: str


def _columns(
    place: str, first: Sequence[str], names: _Names, wanted: Sequence[str], known: Sequence[str]
) -> _Columns:
    """Where in an index entities and paths stand."""
    lower = [cell.casefold() for cell in first]
    if len(first) < 2:
        raise DataError(f"{place}: one column, expected an entity and a path, separated by a tab")
    if len(wanted) > 1:
        raise UsageError("--columns: an index has one column of paths")
    if wanted and wanted[0].isascii() and wanted[0].isdigit():
        if not 2 <= int(wanted[0]) <= len(first):
            raise UsageError(f"--columns {wanted[0]}: expected a number from 2 to {len(first)}")
        header = not names.knows(first[0]) and lower[0] in _ENTITY_COLUMNS
        return _Columns(0, int(wanted[0]) - 1, header, f"column {wanted[0]}")
    if wanted and wanted[0] not in first[1:]:
        raise UsageError(
            f"--columns {wanted[0]}: {place} has no such column; {nearest(wanted[0], first[1:])}"
        )
    named = [name for name in (wanted or known) if name in (first if wanted else lower)[1:]]
    if named and not names.knows(first[0]):
        entity = next((lower.index(name) for name in _ENTITY_COLUMNS if name in lower), 0)
        path = (first if wanted else lower).index(named[0], 1)
        return _Columns(entity, path, True, f"column {first[path]}")
    if len(first) > 2:
        raise DataError(
            f"{place}: {len(first)} columns and no header that calls one of them "
            f"{', '.join(known)}; say which holds paths, as in --columns 2"
        )
    return _Columns(0, 1, False, "")


def _named(path: Path, note: str) -> Iterator[File]:
    """The file that an index names, or all in the folder."""
    try:
        if path.is_dir():
            for file in _walk(str(path)):
                yield replace(file, origin=file.origin + note)
            return
    except (OSError, ValueError):  # said when it is opened
        pass
    yield _file(str(path), note)
