"""Finds the plugin that raised an exception: its file and line."""

from __future__ import annotations

from mmkgc_cli.errors import DataError, MmkgcError, is_out_of_memory
from mmkgc_cli.plugins.kinds import BUILT_IN, Plugin

# Plugins that were imported in this process, by file.
_loaded: dict[str, Plugin] = {}


def register(plugin: Plugin) -> None:
    """Records that code of a plugin may run from here on."""
    if plugin.file is not None:
        _loaded[str(plugin.file)] = plugin


def convert_error(error: Exception) -> MmkgcError | None:
    """Converts an exception that a user's plugin raised to an error with file and line.

    A `MmkgcError` is returned unchanged. None for other exceptions: running out of memory is no
    fault of a plugin, and an exception of a built-in plugin is a fault of mmkgc.
    """
    if isinstance(error, MmkgcError):
        return error
    if is_out_of_memory(error):
        return None
    for file, plugin in _loaded.items():
        place = None if plugin.origin == BUILT_IN else locate(error, file)
        if place is not None:
            line, function = place
            return DataError(
                f"{plugin.where}:{line}: {function}: {describe(error)}",
                fix=f"correct line {line} of that file",
            )
    return None


def locate(error: BaseException, file: str) -> tuple[int, str] | None:
    """Line and function of the innermost frame of `error` in `file`; None without such a frame."""
    place = None
    trace = error.__traceback__
    while trace is not None:
        code = trace.tb_frame.f_code
        if code.co_filename == file:
            place = trace.tb_lineno, code.co_qualname.replace(".<locals>", "")
        trace = trace.tb_next
    return place


def describe(error: BaseException) -> str:
    """The type of an exception and the first line of its message."""
    first = (str(error).strip().splitlines() or [""])[0]
    return f"{type(error).__name__}: {first}" if first else type(error).__name__
