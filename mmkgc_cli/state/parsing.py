"""Parses JSON and TOML of any origin; every mistake is one line with its place.

The parsers of the standard library raise their own errors for invalid syntax only. Deep nesting and
integers of thousands of digits give other exceptions, and lone surrogates fail when they are used.
"""

from __future__ import annotations

import json
import re
import tomllib
from typing import Any

from mmkgc_cli.errors import DataError

INT64 = range(-(2**63), 2**63)
_FIX = "correct that line, or restore the file"
_LONG_NUMBER = re.compile(r"[0-9][0-9_]{4299,}")
_POSITION = re.compile(r" \(at line (\d+), column \d+\)$")
# What a hand-written file never reaches, and Python's recursion limit does not exceed.
_DEEPEST = 100


def parse_json(text: str | bytes, where: str, *, fix: str = _FIX) -> Any:
    """Parses JSON.

    Args:
        text: the document; bytes are UTF-8.
        where: the file, for messages.
        fix: what the user can do about a mistake.

    Raises:
        DataError: for anything but JSON with text that can be encoded.
    """
    try:
        if isinstance(text, bytes):
            text = text.decode()
        value = json.loads(text)
        if "\\ud" in text or "\\uD" in text:
            json.dumps(value, ensure_ascii=False).encode()
    except json.JSONDecodeError as error:
        raise DataError(f"{where}:{error.lineno}: not valid JSON: {error.msg}", fix=fix) from None
    except UnicodeDecodeError:
        raise DataError(f"{where}: not valid JSON: not UTF-8", fix=fix) from None
    except UnicodeEncodeError:
        raise DataError(
            f"{where}: not valid JSON: half of a surrogate pair in a string", fix=fix
        ) from None
    except (RecursionError, ValueError) as error:
        raise DataError(_unusual(str(text), where, "JSON", error), fix=fix) from None
    return value


def parse_toml(text: str, where: str, *, fix: str = _FIX) -> dict[str, Any]:
    """Parses TOML; its integers have 64 bits, as the format demands of parsers.

    Raises:
        DataError: as `parse_json`.
    """
    try:
        values = tomllib.loads(text)
        wide = _first_wide(values)
    except tomllib.TOMLDecodeError as error:
        position = _POSITION.search(str(error))
        reason = str(error)[: position.start()] if position else str(error)
        place = f"{where}:{position[1]}" if position else where
        raise DataError(f"{place}: not valid TOML: {reason}", fix=fix) from None
    except (RecursionError, ValueError) as error:
        raise DataError(_unusual(text, where, "TOML", error), fix=fix) from None
    if wide:
        raise DataError(
            f"{where}: {wide}: expected an integer of 64 bits, got a larger one", fix=fix
        )
    return values


def _unusual(text: str, where: str, syntax: str, error: Exception) -> str:
    """The message for a document that is nested too deeply or has too long a number."""
    lines = text.split("\n")
    if isinstance(error, RecursionError):
        depths = [line.count("[") + line.count("{") + line.count(".") for line in lines]
        number, reason = depths.index(max(depths)) + 1, "nested too deeply"
    else:
        matches = [i for i, line in enumerate(lines, 1) if _LONG_NUMBER.search(line)]
        number = matches[0] if matches else 1
        reason = "a number with too many digits" if matches else str(error)
    return f"{where}:{number}: not valid {syntax}: {reason}"


def _first_wide(value: Any, name: str = "", depth: int = 0) -> str:
    """The name of the first integer beyond 64 bits; empty without any."""
    if depth > _DEEPEST:
        raise RecursionError
    if isinstance(value, dict):
        pairs = [(f"{name}.{key}" if name else key, item) for key, item in value.items()]
    elif isinstance(value, list):
        pairs = [(f"{name}[{i}]", item) for i, item in enumerate(value)]
    else:
        return name if isinstance(value, int) and value not in INT64 else ""
    return next(filter(None, (_first_wide(item, key, depth + 1) for key, item in pairs)), "")
