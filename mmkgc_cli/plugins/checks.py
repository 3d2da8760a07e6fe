"""Checks of plugin classes that all kinds share."""

from __future__ import annotations

import inspect
from typing import Any

from mmkgc_cli.plugins.kinds import Complaint


def check_arguments(plugin: type, name: str, arguments: tuple[str, ...]) -> Complaint | None:
    """Checks that the method `name` can be called with positional `arguments`."""
    try:
        signature = inspect.signature(getattr(plugin, name))
    except (TypeError, ValueError):  # not written in Python
        return None
    try:
        signature.bind(None, *arguments)
    except TypeError:
        expected = ", ".join(("self", *arguments))
        got = ", ".join(map(str, signature.parameters))
        return Complaint(
            name, f"expected the arguments ({expected}), got ({got})",
            f"define it as def {name}({expected})",
        )  # fmt: skip
    return None


def check_description(plugin: type, config_base: type) -> Complaint | None:
    """Checks `citation` and `Config`."""
    citation: Any = getattr(plugin, "citation", None)
    if not isinstance(citation, str) or not citation.strip():
        return Complaint(
            "citation", f"expected the publication to cite, got {shown(citation)}",
            'set citation = "AUTHORS. TITLE. VENUE, YEAR."',
        )  # fmt: skip
    config: Any = getattr(plugin, "Config", None)
    if not (isinstance(config, type) and issubclass(config, config_base)):
        return Complaint(
            "Config", f"expected a subclass of {config_base.__name__}, got {shown(config)}",
            f"derive the class of settings from {config_base.__name__}",
        )  # fmt: skip
    return None


def shown(value: object) -> str:
    """A value as a message shows it."""
    return "none" if value is None else repr(value)
