"""Formats counts, sizes and errors of libraries for messages."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Formats a count and its noun: ``1 row``, ``2 rows``, ``1,204 entities``."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else plural}"


def byte_text(count: int) -> str:
    """``512 B``, ``3.4 KiB``, ``1.2 GiB``."""
    if count < 1024:
        return f"{count} B"
    number = count / 1024
    for unit in ("KiB", "MiB", "GiB"):
        if number < 999.95:
            return f"{number:.1f} {unit}"
        number /= 1024
    return f"{number:,.1f} TiB"


def reason_of(error: BaseException) -> str:
    """The first line of an error of a library, or its type if it has no text."""
    # The text of a KeyError is the representation of its argument.
    text = str(error.args[0]) if isinstance(error, KeyError) and error.args else str(error)
    return next(iter(text.splitlines()), "") or type(error).__name__
