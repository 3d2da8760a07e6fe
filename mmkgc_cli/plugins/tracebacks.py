"""Whose fault an exception is: the plugin's that it came through, by file and line."""

from __future__ import annotations

from mmkgc_cli.errors import DataError, MmkgcError, is_out_of_memory
from mmkgc_cli.plugins.kinds import BUILT_IN, Plugin

# By file, those that were loaded in this process.
_loaded: dict[str, Plugin] = {}


def remember(plugin: Plugin) -> None:
    """Notes that code of a plugin may run from here on."""
    if plugin.file is not None:
        _loaded[str(plugin.file)] = plugin


def blame(error: Exception) -> MmkgcError | None:
    """The error that has a line for the user: what a plugin raised, with its file and line.

    Those that have a line of their own stay as they are. None for all others: too little memory is
    nobody's fault, and what built-in plugins raise is ours.
    """
    if isinstance(error, MmkgcError):
        return error
    if is_out_of_memory(error):
        return None
    for file, plugin in _loaded.items():
        place = None if plugin.origin == BUILT_IN else place_in(error, file)
        if place is not None:
            return DataError(f"{plugin.where}:{place[0]}: {place[1]}: {said(error)}")
    return None


def place_in(error: BaseException, file: str) -> tuple[int, str] | None:
    """Line and function in `file` that an exception last came through; None where it did not."""
    found = None
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == file:
            found = trace.tb_lineno, code.co_qualname.replace(".<locals>", "")
        trace = trace.tb_next
    return found


def said(error: BaseException) -> str:
    """The type of an exception and the first line of what it says."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
