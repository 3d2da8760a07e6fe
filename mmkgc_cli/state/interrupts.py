"""What Ctrl-C, SIGTERM and SIGHUP do in a command: one line, and exit code 128 + signal.

The handler ends the process; it raises no exception. Imports, destructors and native code of
libraries swallow exceptions or turn them into others, so an exception would not always unwind.
Files are safe, because every file is written so that it survives SIGKILL. Long loops take over the
signals with `signals.StopRequest`.
"""

from __future__ import annotations

import os
import signal

# Nothing else is imported, not even typing: until `install` runs, the interpreter itself reports
# an interrupt.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import FrameType
    from typing import NoReturn

# SIGHUP is sent when a terminal or a connection closes; Windows has none.
SIGNALS = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]
# Called before the process ends, such as the removal of temporary files; must not raise.
cleanups: list[Callable[[], None]] = []

_SHOW_CURSOR = "\x1b[?25h\n"  # a progress bar may have hidden it, and left a line without an end


def install() -> None:
    """Handles the signals from here on; one that the parent ignores, as `nohup` does, stays so."""
    for number in SIGNALS:
        if signal.getsignal(number) is not signal.SIG_IGN:
            signal.signal(number, end_process)


def ignore() -> None:
    """Ignores the signals from here on: the work of the process is done."""
    for number in SIGNALS:
        signal.signal(number, signal.SIG_IGN)


def end_process(number: int, frame: FrameType | None = None) -> NoReturn:
    """Ends the process as a signal does: removes temporary files and writes one line."""
    ignore()
    for cleanup in cleanups:
        cleanup()
    line = "interrupted" if number == signal.SIGINT else "terminated by a signal"
    start = _SHOW_CURSOR if os.isatty(2) else ""
    try:
        os.write(2, f"{start}error: {line}; run the same command again\n".encode())
    finally:
        os._exit(128 + number)
