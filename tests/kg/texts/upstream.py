"""Small files in the formats of the published files of `mmkgc texts build`."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from mmkgc_cli.kg.texts import tables


def item(qid: str, label: str, description: str | None = None, **more: Any) -> dict[str, Any]:
    fields = {"wikidata_id": qid, "label": label, "description": description}
    return {**fields, "alternatives": [], "wikipedia": None, **more}


def write(
    folder: Path,
    *,
    items: Mapping[str, Any] | None = None,
    numbers: Iterable[tuple[str, str, str]] = (),
    dbpedia: Iterable[tuple[str, str]] = (),
    yago: Iterable[tuple[str, str]] = (),
    labels: Iterable[tuple[str, str]] = (),
    descriptions: Iterable[tuple[str, str]] = (),
    types: Iterable[tuple[str, str]] = (),
    literals: Iterable[tuple[str, str, str]] = (),
    codex: Mapping[str, list[str]] | None = None,
    codex_texts: Mapping[str, tuple[str, str]] | None = None,
) -> dict[str, Path]:
    """Writes every file; each has a line for an unused id, so that none is empty."""
    texts = {qid: {"label": a, "description": b} for qid, (a, b) in (codex_texts or {}).items()}
    ns = "http://rdf.freebase.com/ns/"
    contents = {
        tables.ITEMS: json.dumps(items or {}),
        tables.CODEX_TYPES: json.dumps(codex or {}),
        tables.CODEX_TYPE_TEXTS: json.dumps(texts),
        tables.NAMES: "/m/0\tNobody\n",
        tables.FREEBASE_NUMBERS: _lines(
            [("/m/0", f"<{ns}a.b>", "1"), *((m, f"<{ns}{a}>", v) for m, a, v in numbers)]
        ),
        tables.DBPEDIA_LINKS: _links("http://dbpedia.org/resource/", dbpedia),
        tables.YAGO_LINKS: _links("http://yago-knowledge.org/resource/", yago),
        tables.WIKIDATA_LABELS: _lines([("Q0", "nobody"), *labels]),
        tables.WIKIDATA_DESCRIPTIONS: _lines([("Q0", "nobody"), *descriptions]),
        tables.WIKIDATA_TYPES: _lines([("Q0", "Q00"), *types]),
        tables.WIKIDATA_NUMBERS: _lines(
            (q, p, f'"{v}"^^<http://x#decimal>') for q, p, v in [("Q0", "P1", "1"), *literals]
        ),
    }
    folder.mkdir(parents=True, exist_ok=True)
    for name, content in contents.items():
        (folder / name).write_text(content, encoding="utf-8")
    return {name: folder / name for name in contents}


def _lines(rows: Iterable[Iterable[str]]) -> str:
    return "".join("\t".join(row) + "\n" for row in rows)


def _links(base: str, pairs: Iterable[tuple[str, str]]) -> str:
    return "".join(f"{mid} <SameAs> <{base}{end}> .\n" for mid, end in [("/m/0", "0"), *pairs])
