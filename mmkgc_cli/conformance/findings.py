"""Results of the conformance checks: one finding per property."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

from mmkgc_cli.conformance.subject import Subject

Outcome = Literal["passed", "failed", "skipped"]


class Failed(Exception):
    """A property fails; the message names the method, the expected and the actual value."""


class Skipped(Exception):
    """A property does not apply; the message contains the reason."""


@dataclass(frozen=True)
class Property:
    """A property that every scorer must have.

    Attributes:
        name: name of the property.
        check: returns if the property holds, and raises `Failed` or `Skipped` otherwise.
        meaning: the consequence of a failure.
        mend: how to fix the scorer.
        needs: names of properties that must pass; otherwise this one is skipped.
    """

    name: str
    check: Callable[[Subject], None]
    meaning: str
    mend: str
    needs: tuple[str, ...] = ()


@dataclass(frozen=True)
class Finding:
    """Result of one property; `meaning` and `mend` are empty unless it failed."""

    name: str
    outcome: Outcome
    detail: str = ""
    meaning: str = ""
    mend: str = ""

    @property
    def passed(self) -> bool:
        """Whether the property holds or does not apply."""
        return self.outcome != "failed"
