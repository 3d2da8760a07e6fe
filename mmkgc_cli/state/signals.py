"""Stopping in good order: the first signal asks, a second SIGINT stops at once."""

from __future__ import annotations

import signal
import threading
from types import FrameType, TracebackType

from mmkgc_cli.errors import Interrupted

# SIGHUP comes when a terminal or a connection goes away; Windows has none.
_SIGNALS = [signal.SIGINT, signal.SIGTERM, *filter(None, [getattr(signal, "SIGHUP", None)])]


class StopRequest:
    """Within the block, a signal sets `signal_number` instead of ending the process.

    Long loops look at `signal_number` between steps, save and call `raise_if_asked`. Handlers are
    put back at the end. Outside the main thread, where Python allows no handlers, it does nothing.
    """

    def __init__(self) -> None:
        self.signal_number = 0
        self._before: dict[int, object] = {}

    def __enter__(self) -> StopRequest:
        if threading.current_thread() is threading.main_thread():
            for number in _SIGNALS:
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)  # type: ignore[arg-type]

    def _handle(self, number: int, frame: FrameType | None) -> None:
        if self.signal_number and number == signal.SIGINT:
            raise KeyboardInterrupt
        self.signal_number = number

    @property
    def asked(self) -> bool:
        """Whether a signal has come."""
        return self.signal_number != 0

    def raise_if_asked(self, message: str) -> None:
        """Ends the command with `message` when a signal has come.

        Raises:
            Interrupted: exit code 130 after SIGINT, 143 after SIGTERM, 129 after SIGHUP.
        """
        if self.signal_number:
            raise Interrupted(message, self.signal_number)
