"""Counts, sizes and errors for messages, and text that is safe to show on a terminal."""

from __future__ import annotations

import re

# Joiners shape letters of several scripts and emoji; they are harmless after such a character.
_JOINERS = "\u200c\u200d"
_UNSAFE = re.compile(
    # Control characters, spaces that look like others, marks that are invisible or reorder text.
    "[\x00-\x1f\x7f-\xa0\xad\u061c\u1680\u180e\u2000-\u200f\u2028-\u202f\u205f-\u206f"
    "\u3000\ud800-\udfff\ufeff\ufff9-\ufffb\U000e0000-\U000e0fff"
    # Letters without a shape, and controls of shorthand and music.
    "\u115f\u1160\u3164\uffa0\U0001bca0-\U0001bca3\U0001d173-\U0001d17a]"
)


def counted(count: int, noun: str) -> str:
    """Formats a count and its noun: ``1 row``, ``2 rows``, ``1,204 entities``."""
    plural = noun[:-1] + "ies" if noun.endswith("y") else noun + "s"
    return f"{count:,} {noun if count == 1 else plural}"


def printable(text: str, *, keep: str = "") -> str:
    """The text with characters escaped that move the cursor, reorder or hide text.

    Escapes have the form of Python literals: a name that is copied from a terminal shows what it
    contains. Zero-width joiners stay after a character outside of ASCII.

    Args:
        text: any text.
        keep: characters that stay, such as line feeds.
    """
    if text.isascii() and text.isprintable():
        return text

    def escape(match: re.Match[str]) -> str:
        character, start = match[0], match.start()
        if character in keep:
            return character
        before = text[start - 1] if start else " "
        if character in _JOINERS and before.isprintable() and not before.isascii():
            return character
        return repr(character)[1:-1]

    return _UNSAFE.sub(escape, text)


def printable_json(text: str) -> str:
    """JSON with the characters that `printable` escapes as JSON escapes; the values stay equal."""
    return _UNSAFE.sub(
        lambda match: "".join(f"\\u{int.from_bytes(unit):04x}" for unit in _utf16_units(match[0])),
        text,
    )


def _utf16_units(character: str) -> list[bytes]:
    data = character.encode("utf-16-be", "surrogatepass")
    return [data[i : i + 2] for i in range(0, len(data), 2)]


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
