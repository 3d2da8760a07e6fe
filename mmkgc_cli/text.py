"""Formats counts for messages."""

from __future__ import annotations


def counted(count: int, noun: str) -> str:
    """Formats a count and its noun: ``1 row``, ``2 rows``, ``1,204 entities``."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else plural}"
