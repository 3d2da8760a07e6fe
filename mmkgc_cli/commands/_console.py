"""The console of rich, with text that is safe to show."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from rich.console import Console
from rich.segment import Segment

from mmkgc_cli.text import printable


class PrintableConsole(Console):
    """A console that escapes text as `printable` does; control codes of rich itself stay."""

    def render(self, renderable: Any, options: Any = None) -> Iterable[Segment]:
        """The segments of a renderable."""
        for segment in super().render(renderable, options):
            if segment.control is None:
                text = printable(segment.text, keep="\n")
                yield segment if text == segment.text else Segment(text, segment.style)
            else:
                yield segment
