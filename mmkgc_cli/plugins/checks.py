"""Checks of the class of a plugin that kinds have in common."""

from __future__ import annotations

import inspect
from typing import Any

from mmkgc_cli.plugins.kinds import Complaint


def takes(of: type, name: str, arguments: tuple[str, ...]) -> Complaint | None:
    """Whether the method `name` can be called with `arguments` by position."""
    try:
        signature = inspect.signature(getattr(of, name))
    except (TypeError, ValueError):  # not written in Python
        return None
    try:
        signature.bind(None, *arguments)
    except TypeError:
        wanted = ", ".join(("self", *arguments))
        got = ", ".join(map(str, signature.parameters))
        return Complaint(name, f"expected the arguments ({wanted}), got ({got})")
    return None


def described(of: type, config_base: type) -> Complaint | None:
    """Whether it says whom to cite, and has settings of the right kind."""
    citation: Any = getattr(of, "citation", None)
    if not isinstance(citation, str) or not citation.strip():
        what = "expected a text that says whom to cite"
        return Complaint("citation", f"{what}, got {shown(citation)}")
    config: Any = getattr(of, "Config", None)
    if not (isinstance(config, type) and issubclass(config, config_base)):
        what = f"expected a subclass of {config_base.__name__}"
        return Complaint("Config", f"{what}, got {shown(config)}")
    return None


def shown(value: object) -> str:
    """A value as a complaint names it."""
    return "none" if value is None else repr(value)
