"""Reader of N-Triples, and of the ``h r t .`` lines that some benchmarks are published as.

N-Triples (https://www.w3.org/TR/n-triples/) are parsed by pyoxigraph, of the extra ``rdf``, taking
IRIs as they are: relative ones, and those with quotes, occur in published benchmarks. Terms are
named as they are written, ``<http://example.org/a>``. Triples with a literal for object are no
links between entities; they are left out and counted.

Where the first line holds a term that is neither an IRI in angle brackets nor a blank node (such as
``/m/027rn <SameAs> <http://dbpedia.org/resource/Dominica> .``), the whole file is read as
blank-separated names with a dot at the end of each line.
"""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, NoReturn

import numpy as np

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.kg.graph import SPLITS, Graph, Provenance
from mmkgc_cli.kg.readers.fields import blank_fields
from mmkgc_cli.kg.readers.lines import BOM, open_source, read_blocks, read_lines
from mmkgc_cli.kg.readers.named_triples import Vocabulary, decode_rows, with_salts
from mmkgc_cli.kg.readers.splits import split_files
from mmkgc_cli.kg.triples import Triples
from mmkgc_cli.text import counted

_SUFFIXES = (".nt", ".txt")
_ORDER = (0, 1, 2)
_BATCH = 1 << 17  # triples whose names are held at once


def read_ntriples(source: Path, name: str) -> Graph:
    """Reads a file, or a folder with train, valid and test files (``.nt`` or ``.txt``).

    Raises:
        DataError: naming file and line.
        MmkgcError: when pyoxigraph is needed and not installed.
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
            splits[split], more = _read_rdf(path, entities, relations)
            literals += more
            if not len(splits[split]) and more:
                raise DataError(
                    f"{path}: holds {counted(more, 'triple')} with literals and no others"
                )
        if not len(splits[split]):
            raise DataError(f"{path}: holds no triples")
    notes = (
        (f"{counted(literals, 'triple')} with a literal for object left out",) if literals else ()
    )
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
    """Whether the first line that says something has a bare name for a term."""
    for _, text in read_lines(path):
        terms = _terms(text)
        if not _is_comment(terms):
            bare = [term for term in terms[:2] if not term.startswith(("<", "_:"))]
            last = terms[2] if len(terms) > 2 else ""
            return bool(bare) or not last.startswith(("<", "_:", '"'))
    return False


def _terms(text: str) -> list[str]:
    """What blanks and tabs separate; other blanks of Unicode are part of names."""
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
    """Finds the first bad line the slow way, now that there is one."""
    for number, text in read_lines(path):
        terms = _terms(text)
        if _is_comment(terms):
            continue
        if len(terms) != 4 or terms[3] != ".":
            raise DataError(f"{path}:{number}: {text[:80]!r} is not 'head relation tail .'")
    raise DataError(f"{path}: not rows of 'head relation tail .'")


def _read_rdf(path: Path, entities: Vocabulary, relations: Vocabulary) -> tuple[Triples, int]:
    """The triples between entities, and how many others there are."""
    try:
        import pyoxigraph as rdf
    except ImportError:
        raise MmkgcError(
            f"{path}: N-Triples are read with pyoxigraph, which is not installed; "
            "pip install 'mmkgc[rdf]'"
        ) from None
    open_source(path)
    parts: list[Triples] = []
    ends: list[str] = []
    relation_names: list[str] = []
    literals = 0

    def flush() -> None:
        rows = np.empty((len(relation_names), 3), dtype=np.int32)
        for vocabulary, columns, found in (
            (entities, [0, 2], ends),
            (relations, [1], relation_names),
        ):
            _refuse_control_characters(path, vocabulary.kind, found)
            rows[:, columns] = vocabulary.table.ids_of(found).reshape(-1, len(columns))
            found.clear()
        parts.append(rows)

    with path.open("rb") as file:
        if file.read(len(BOM)) != BOM:
            file.seek(0)
        try:
            for triple in rdf.parse(input=file, format=rdf.RdfFormat.N_TRIPLES, lenient=True):
                if isinstance(triple.object, rdf.Literal):
                    literals += 1
                    continue
                ends.extend((str(triple.subject), str(triple.object)))
                relation_names.append(str(triple.predicate))
                if len(relation_names) == _BATCH:
                    flush()
        except SyntaxError as error:
            raise DataError(_syntax(path, error)) from None
        except (ValueError, OSError) as error:
            raise DataError(f"{path}: cannot be parsed as N-Triples: {error}") from None
    flush()
    return np.concatenate(parts), literals


def _syntax(path: Path, error: SyntaxError) -> str:
    reason = str(error.msg).partition(": ")[2] or str(error.msg)
    return f"{path}:{error.lineno}: not N-Triples: {' '.join(reason.split())}"


def _refuse_control_characters(path: Path, kind: str, names: list[Any]) -> None:
    """Escapes can put what `read_lines` refuses into a name."""
    for name in names:
        if not name.isprintable() and any(ord(c) < 32 or ord(c) == 127 for c in name):
            raise DataError(f"{path}: {kind} {name[:80]!r} holds a control character")
