"""Graceful stop on signals: the first one is a request, a second SIGINT acts at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from mmkgc_cli.errors import Interrupted
from mmkgc_cli.state.interrupts import SIGNALS


class StopRequest:
    """Within the block, a signal sets `signal_number` instead of ending the process.

    Long loops check `asked` between steps, save their work and call `raise_if_asked`. The handlers
    are restored at the end. Does nothing outside the main thread, where Python allows no handlers.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        error_type: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number and number == signal.SIGINT:
            before = self._before[number]
            if not callable(before):
                raise KeyboardInterrupt
            before(number, frame)  # ends a command, and raises KeyboardInterrupt in a library
        self.signal_number = number

    @property
    def asked(self) -> bool:
        """Whether a signal was received."""
        return self.signal_number != 0

    def raise_if_asked(self, problem: str, *, fix: str = "") -> None:
        """Ends the command with `problem` and `fix` if a signal was received.

        Raises:
            Interrupted: exit code 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP.
        """
        if self.signal_number:
            raise Interrupted(problem, self.signal_number, fix=fix)
