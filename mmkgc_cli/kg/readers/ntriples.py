"""Reader of N-Triples, and of the ``h r t .`` lines of some published benchmarks.

N-Triples (https://www.w3.org/TR/n-triples/) are parsed by pyoxigraph (extra ``rdf``) without
validation of IRIs, because published benchmarks contain relative IRIs and IRIs with quotes. Names
are the terms as written, ``<http://example.org/a>``. Triples with a literal as object do not
connect entities; they are counted and ignored.

When the first triple has a term that is neither an IRI in angle brackets nor a blank node (such as
``/m/027rn <SameAs> <http://dbpedia.org/resource/Dominica> .``), the whole file is read as
blank-separated names with a dot at the end of each line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import NoReturn

import numpy as np

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.kg.graph import SPLITS, Graph, Provenance
from mmkgc_cli.kg.readers.fields import blank_fields
from mmkgc_cli.kg.readers.lines import (
    BOM,
    FIX_EMPTY,
    FIX_LINE,
    open_source,
    read_blocks,
    read_lines,
)
from mmkgc_cli.kg.readers.named_triples import Vocabulary, decode_rows, with_salts
from mmkgc_cli.kg.readers.splits import split_files
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.text import counted

_SUFFIXES = (".nt", ".txt")
_ORDER = (0, 1, 2)
_BATCH = 1 << 17  # triples with their names in memory


def read_ntriples(source: Path, name: str) -> Graph:
    """Reads a file, or a folder with train, valid and test files (``.nt`` or ``.txt``).

    Raises:
        DataError: with file and line.
        MmkgcError: when pyoxigraph is required but not installed.
    """
    files = split_files(source, _SUFFIXES)
    return with_salts(source, lambda salt: _read(files, name, salt))


def _read(files: dict[str, Path], name: str, salt: int) -> Graph:
    entities, relations = Vocabulary("entity", None, salt), Vocabulary("relation", None, salt)
    splits: dict[str, Triples] = {}
    literals = 0
    for split in SPLITS:
        splits[split] = np.empty((0, 3), dtype=np.int32)
        if split not in files:
            continue
        path = files[split]
        if _is_plain(path):
            splits[split] = _read_plain(path, entities, relations)
        else:
            splits[split], count = _read_rdf(path, entities, relations)
            literals += count
            if not len(splits[split]) and count:
                raise DataError(
                    f"{path}: contains {counted(count, 'triple')} with literals and no others",
                    fix="provide triples with an entity as object",
                )
        if not len(splits[split]):
            raise DataError(f"{path}: contains no triples", fix=FIX_EMPTY)
    notes = (f"{counted(literals, 'triple')} with a literal as object ignored",) if literals else ()
    return Graph(
        name,
        entities.table.names(),
        relations.table.names(),
        splits["train"],
        splits["valid"],
        splits["test"],
        provenance=Provenance(notes=notes),
    )


def _is_plain(path: Path) -> bool:
    """Whether the first triple contains a bare name."""
    for _, text in read_lines(path):
        terms = _terms(text)
        if not _is_comment(terms):
            bare = [term for term in terms[:2] if not term.startswith(("<", "_:"))]
            last = terms[2] if len(terms) > 2 else ""
            return bool(bare) or not last.startswith(("<", "_:", '"'))
    return False


def _terms(text: str) -> list[str]:
    """The terms of a line, separated by blanks and tabs; names may contain other white space."""
    return re.split("[ \t]+", text.strip(" \t"))


def _is_comment(terms: list[str]) -> bool:
    return terms[0] == "#" or (terms[0].startswith("#") and len(terms) != 4)


def _read_plain(path: Path, entities: Vocabulary, relations: Vocabulary) -> Triples:
    parts: list[Triples] = []
    _, blocks = read_blocks(path)
    for number, block in blocks:
        fields = blank_fields(block, number, 4)
        if fields is None:
            _report_bad_row(path)
        dots = fields.data[fields.starts[:, 3]] == ord(".")
        if not (dots & (fields.ends[:, 3] - fields.starts[:, 3] == 1)).all():
            _report_bad_row(path)
        parts.append(decode_rows(path, fields, _ORDER, entities, relations))
    return np.concatenate(parts) if parts else np.empty((0, 3), dtype=np.int32)


def _report_bad_row(path: Path) -> NoReturn:
    """Reads line by line to report the first bad one."""
    for number, text in read_lines(path):
        terms = _terms(text)
        if _is_comment(terms):
            continue
        if len(terms) != 4 or terms[3] != ".":
            raise DataError(
                f"{path}:{number}: {text[:80]!r} is not 'head relation tail .'", fix=FIX_LINE
            )
    raise DataError(f"{path}: not rows of 'head relation tail .'", fix=FIX_LINE)


def _read_rdf(path: Path, entities: Vocabulary, relations: Vocabulary) -> tuple[Triples, int]:
    """The triples between entities, and the number of triples with a literal."""
    try:
        import pyoxigraph as rdf
    except ImportError:
        raise MmkgcError(
            f"{path}: reading N-Triples requires pyoxigraph, which is not installed",
            fix="pip install 'mmkgc[rdf]'",
        ) from None
    open_source(path)
    parts: list[Triples] = []
    entity_names: list[str] = []
    relation_names: list[str] = []
    literals = 0

    def flush() -> None:
        rows = np.empty((len(relation_names), 3), dtype=np.int32)
        for vocabulary, columns, names in (
            (entities, [0, 2], entity_names),
            (relations, [1], relation_names),
        ):
            _refuse_control_characters(path, vocabulary.noun, names)
            rows[:, columns] = vocabulary.table.ids_of(names).reshape(-1, len(columns))
            names.clear()
        parts.append(rows)

    with path.open("rb") as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        try:
            for triple in rdf.parse(input=file, format=rdf.RdfFormat.N_TRIPLES, lenient=True):
                if isinstance(triple.object, rdf.Literal):
                    literals += 1
                    continue
                entity_names.extend((str(triple.subject), str(triple.object)))
                relation_names.append(str(triple.predicate))
                if len(relation_names) == _BATCH:
                    flush()
        except SyntaxError as error:
            reason = str(error.msg).partition(": ")[2] or str(error.msg)
            raise DataError(
                f"{path}:{error.lineno}: not N-Triples: {' '.join(reason.split())}", fix=FIX_LINE
            ) from None
        except (ValueError, OSError) as error:
            reason = " ".join(str(error).split())
            raise DataError(
                f"{path}: cannot be parsed as N-Triples: {reason}", fix=FIX_LINE
            ) from None
    flush()
    return np.concatenate(parts), literals


def _refuse_control_characters(path: Path, noun: str, names: list[str]) -> None:
    """Refuses control characters, which escapes can add to names that `read_lines` accepts."""
    for name in names:
        if not name.isprintable() and any(ord(c) < 32 or ord(c) == 127 for c in name):
            raise DataError(
                f"{path}: {noun} {name[:80]!r} contains a control character",
                fix="remove the escape of the character from the name",
            )
