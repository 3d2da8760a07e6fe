"""What can be said of scorers: from their files alone, or in full once one is loaded."""

from __future__ import annotations

import re
from typing import TYPE_CHECKING, Any

from mmkgc_cli.plugins import Catalogue, Plugin, discover, load_plugin, outline, require
from mmkgc_cli.scoring.registry import SCORERS

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

_BOUNDS = (("gt", ">"), ("ge", ">="), ("lt", "<"), ("le", "<="), ("multiple_of", "a multiple of"))


def listed(catalogue: Catalogue) -> list[dict[str, Any]]:
    """One entry a scorer, in the order of discovery; nothing is imported.

    ``modalities`` is None where only running the file would tell, ``problem`` where none shows.
    """
    return [_listed(plugin) for plugin in catalogue.plugins.values()]


def _listed(plugin: Plugin) -> dict[str, Any]:
    said = outline(plugin, SCORERS.attribute)
    return {
        "name": plugin.name,
        "origin": plugin.origin,
        "file": None if plugin.file is None else str(plugin.file),
        "summary": said.summary,
        "modalities": _modalities(said.constants.get("modalities")),
        "problem": said.problem or None,
    }


def described(name: str) -> dict[str, Any]:
    """Everything about one scorer, which is imported for it.

    Raises:
        UsageError: when there is none of that name.
        DataError: when it is broken.
    """
    plugin = require(SCORERS, name)
    scorer = load_plugin(SCORERS, plugin)
    metric = getattr(scorer, "metric", None)
    return {
        **_listed(plugin),
        "modalities": _modalities(getattr(scorer, "modalities", None)),
        "citation": scorer.citation,
        "metric": _named(metric),
        "two_way": scorer.two_way,
        "per_relation": scorer.per_relation,
        "settings": {
            f"model.{key}": _setting(field) for key, field in scorer.Config.model_fields.items()
        },
        "not_used": discover(SCORERS).taken.get(name, []),
    }


def _named(metric: Any) -> Any:
    """A metric by its name, branches as a list of them."""
    return (
        [of.name for of in metric] if isinstance(metric, tuple) else getattr(metric, "name", None)
    )


def field_range(field: FieldInfo) -> str:
    """The bounds of a setting, as ``>= 1, <= 10``; empty without any."""
    return ", ".join(
        f"{sign} {limit:{'g' if isinstance(limit, float) else ','}}"
        for constraint in field.metadata
        for key, sign in _BOUNDS
        if (limit := getattr(constraint, key, None)) is not None
    )


def _setting(field: FieldInfo) -> dict[str, Any]:
    kind = field.annotation
    shown = kind.__name__ if isinstance(kind, type) else re.sub(r"\w+\.(?=\w)", "", str(kind))
    return {
        "type": shown,
        "default": None if field.is_required() else _plain(field.get_default()),
        "required": field.is_required(),
        "range": field_range(field) or None,
        "help": field.description or "",
    }


def _plain(value: Any) -> Any:
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _modalities(value: Any) -> list[str] | None:
    if isinstance(value, str):
        return [value]
    return [str(item) for item in value] if isinstance(value, list | tuple | set) else None
