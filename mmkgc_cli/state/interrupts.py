"""What Ctrl-C and SIGTERM do in a command: one line, and exit code 130 or 143.

`install` runs before anything heavy is imported. While modules are imported, the process ends at
once: nothing is half done then, and import code of libraries may swallow exceptions. Later, an
exception unwinds the command. A second Ctrl-C ends the process at once and quietly. Long loops
take over the signals with `signals.StopRequest`.
"""

from __future__ import annotations

import os
import signal
import sys
from types import FrameType
from typing import Any, NoReturn

_LINES = {signal.SIGINT: "error: interrupted\n", signal.SIGTERM: "error: terminated by a signal\n"}
_SHOW_CURSOR = "\x1b[?25h"


def install() -> None:
    """Handles SIGINT and SIGTERM from here on."""
    # A parent that ignores Ctrl-C, such as `nohup` or a shell script with &, wants that.
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, _handle)
    signal.signal(signal.SIGTERM, _handle)
    sys.unraisablehook = _unraisable


def end_quietly(code: int) -> None:
    """From here on, Ctrl-C ends the process at once with `code`: its work is done or lost."""
    if signal.getsignal(signal.SIGINT) is not signal.SIG_IGN:
        signal.signal(signal.SIGINT, lambda *_: os._exit(code))


def _handle(number: int, frame: FrameType | None) -> None:
    if _is_importing(frame):
        _leave(number)
    end_quietly(128 + number)
    if number == signal.SIGINT:
        raise KeyboardInterrupt
    from mmkgc_cli.errors import Interrupted

    raise Interrupted("terminated by a signal", number, fix="run the same command again")


def _is_importing(frame: FrameType | None) -> bool:
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return True
        frame = frame.f_back
    return False


def _leave(number: int) -> NoReturn:
    line = (_SHOW_CURSOR if os.isatty(2) else "") + _LINES[signal.Signals(number)]
    try:
        os.write(2, line.encode())
    finally:
        os._exit(128 + number)


def _unraisable(error: Any) -> None:
    """A signal that arrived in a destructor or a callback, which would swallow it."""
    if isinstance(error.exc_value, KeyboardInterrupt):
        _leave(signal.SIGINT)
    sys.__unraisablehook__(error)
