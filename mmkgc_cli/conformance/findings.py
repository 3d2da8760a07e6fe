"""What the kit says of a scorer: a finding a property."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mmkgc_cli.conformance.subject import Subject

Outcome = Literal["passed", "failed", "skipped"]


class Failed(Exception):
    """A property does not hold; the message names method, expected and got."""


class Skipped(Exception):
    """A property does not apply; the message says why."""


@dataclass(frozen=True)
class Property:
    """Something every scorer must hold.

    `check` raises `Failed` or `Skipped`, or returns; a property is skipped unless all of those in
    `needs` hold. `meaning` says what is wrong with a scorer that fails, `mend` what to do.
    """

    name: str
    check: Callable[[Subject], None]
    meaning: str
    mend: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """How the property `name` came out; `meaning` and `mend` are empty unless it failed."""

    name: str
    outcome: Outcome
    detail: str = ""
    meaning: str = ""
    mend: str = ""

    @property
    def passed(self) -> bool:
        """Whether it holds, or does not apply."""
        return self.outcome != "failed"
