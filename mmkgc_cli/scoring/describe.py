"""Describes scorers from their source; none is imported."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.plugins import Catalogue, Plugin, declaration, discover, outline, require
from mmkgc_cli.scoring.registry import SCORERS

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_BOUNDS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="), ("multiple_of", "a multiple of"))


def list_scorers(catalogue: Catalogue) -> list[dict[str, Any]]:
    """One entry for each scorer, in the order of discovery.

    ``modalities`` is None where the source does not show them; ``problem`` is None for a file that
    is not evidently broken.
    """
    return [_entry(plugin) for plugin in catalogue.plugins.values()]


def _entry(plugin: Plugin) -> dict[str, Any]:
    source = outline(plugin, SCORERS.attribute)
    modalities = None if source.problem else declaration(plugin, SCORERS).values.get("modalities")
    return {
        "name": plugin.name,
        "origin": plugin.origin,
        "file": None if plugin.file is None else str(plugin.file),
        "summary": source.summary,
        "modalities": _modalities(modalities),
        "problem": source.problem or None,
    }


def describe_scorer(name: str) -> dict[str, Any]:
    """Everything that the source of one scorer shows; what it does not show is None.

    Raises:
        UsageError: for an unknown name.
        DataError: when the file is evidently broken.
    """
    plugin = require(SCORERS, name)
    entry = _entry(plugin)
    if entry["problem"]:
        raise DataError(entry["problem"], fix="correct the file of the scorer")
    declared = declaration(plugin, SCORERS)
    values = declared.values
    fields = declared.settings.model_fields if declared.settings else {}
    return {
        **entry,
        "citation": values.get("citation"),
        "metric": values.get("metric"),
        "two_way": values.get("two_way"),
        "per_relation": values.get("per_relation"),
        "settings": {f"model.{key}": _setting(field) for key, field in fields.items()},
        "not_used": discover(SCORERS).taken.get(name, []),
    }


def scores_triples_only(name: str) -> bool:
    """Whether the source of a scorer defines no queries.

    Raises:
        UsageError: for an unknown name.
    """
    return not declaration(require(SCORERS, name), SCORERS).defines("query")


def field_range(field: FieldInfo) -> str:
    """The bounds of a setting, as ``>= 1, <= 10``; empty without any."""
    return ", ".join(
        f"{sign} {limit:{'g' if isinstance(limit, float) else ','}}"
        for constraint in field.metadata
        for key, sign in _BOUNDS
        if (limit := getattr(constraint, key, None)) is not None
    )


def _setting(field: FieldInfo) -> dict[str, Any]:
    annotation: Any = field.annotation
    is_class = isinstance(annotation, type)
    return {
        "type": annotation.__name__ if is_class else re.sub(r"\w+\.(?=\w)", "", str(annotation)),
        "default": None if field.is_required() else _plain(field.get_default()),
        "required": field.is_required(),
        "range": field_range(field) or None,
        "help": field.description or "",
    }


def _plain(value: Any) -> Any:
    """A value that JSON can contain."""
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _modalities(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, list | tuple | set) else None
