"""A server that forks a child for each request, where a new process would import too much.

Parent and server talk over a Unix socket, a JSON object for each message. The parent numbers its
requests: ``{"id": N, ...}`` with descriptors starts a child, ``{"id": N, "signal": S}`` sends it a
signal. The server answers ``{"id": N, "pid": P}`` and, in the end, ``{"id": N, "code": C}``.
"""

from __future__ import annotations

import json
import os
import select
import signal
import socket
from collections.abc import Callable, Iterator
from typing import Any

MESSAGE_BYTES, MOST_DESCRIPTORS = 2**16, 16


class ForkServer:
    """The server's side: its socket, and its children by process id."""

    def __init__(self, descriptor: int) -> None:
        """Takes the socket `descriptor`; must be called before threads start."""
        self._channel = socket.socket(fileno=descriptor)
        self._children: dict[int, int] = {}  # numbers of requests
        # Written to at every SIGCHLD.
        self._reader, self._writer = os.pipe()
        for end in (self._reader, self._writer):
            os.set_blocking(end, False)
        signal.set_wakeup_fd(self._writer, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)

    def requests(
        self, is_wanted: Callable[[], bool] = lambda: True, seconds: float | None = None
    ) -> Iterator[tuple[dict[str, Any], list[int]]]:
        """Yields requests to start a child, each with its descriptors, until the parent ends.

        Args:
            is_wanted: is asked after each message; the iteration ends when it returns False.
            seconds: ask at least that often; None waits for messages only.
        """
        ends: list[Any] = [self._channel, self._reader]
        while True:
            readable, _, _ = select.select(ends, [], [], seconds)
            if not is_wanted():
                return
            if self._reader in readable:
                os.read(self._reader, MESSAGE_BYTES)
                self._reap()
            if self._channel not in readable:
                continue
            try:
                data, descriptors, _, _ = socket.recv_fds(
                    self._channel, MESSAGE_BYTES, MOST_DESCRIPTORS
                )
            except ConnectionResetError:  # the parent was killed with unread messages
                return
            if not data:
                return
            request = json.loads(data)
            if "signal" in request:
                self._send_signal(request["id"], request["signal"])
            else:
                yield request, descriptors

    def fork(self, number: int, descriptors: list[int]) -> bool:
        """Forks a child for the request `number`; True in the child, which keeps `descriptors`."""
        pid = os.fork()
        if not pid:
            signal.set_wakeup_fd(-1)
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            for end in (self._channel.detach(), self._reader, self._writer):
                os.close(end)
            return True
        self._children[pid] = number
        for end in descriptors:
            os.close(end)
        self.reply(id=number, pid=pid)
        return False

    def reply(self, **message: Any) -> None:
        """Sends a message; ends the server if the parent has ended."""
        try:
            self._channel.send(json.dumps(message).encode())
        except OSError:
            os._exit(0)

    def kill_children(self) -> None:
        """Ends all children."""
        for pid in self._children:
            os.kill(pid, signal.SIGKILL)

    def _send_signal(self, number: int, sent: int) -> None:
        for pid, of_child in self._children.items():
            if of_child == number:
                os.kill(pid, sent)

    def _reap(self) -> None:
        for pid, number in list(self._children.items()):
            ended, status = os.waitpid(pid, os.WNOHANG)
            if ended:
                del self._children[pid]
                self.reply(id=number, code=os.waitstatus_to_exitcode(status))
