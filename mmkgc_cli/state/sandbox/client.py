"""The parent's side: starts the server and asks a child about a file."""

from __future__ import annotations

import atexit
import contextlib
import dataclasses
import importlib.util
import json
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any, NoReturn

import mmkgc_cli
from mmkgc_cli import errors
from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.state import children, interrupts
from mmkgc_cli.state.sandbox import messages
from mmkgc_cli.state.sandbox.messages import Buffer, Message, TooLong

# The package and its libraries are found where this process found them; nothing else is added to
# the path of an isolated interpreter.
_BOOT = """
import importlib.util, json, sys
package, folders, call = json.loads(sys.argv[1])
sys.path += [folder for folder in folders if folder not in sys.path]
spec = importlib.util.spec_from_file_location(
    "mmkgc_cli", package + "/__init__.py", submodule_search_locations=[package])
module = importlib.util.module_from_spec(spec)
sys.modules["mmkgc_cli"] = module
spec.loader.exec_module(module)
from mmkgc_cli.state.sandbox import server
getattr(server, call[0])(*call[1:])
"""
_LIBRARIES = ("numpy", "h5py")
_ENVIRONMENT = {
    "OPENBLAS_NUM_THREADS": "1",  # its threads would be lost in a fork
    "HDF5_PLUGIN_PRELOAD": "::",  # no filter is loaded from the machine
}
_START_SECONDS = 60.0
_FIX_FILE = "check where the file comes from and write it again, or convert it to .npy"


@dataclass(frozen=True)
class Limits:
    """What a child may use: bytes of memory beyond its start, seconds, and bytes per answer."""

    memory: int = 2 << 30
    cpu_seconds: int = 10
    answer_seconds: float = 120.0
    answer_bytes: int = 1 << 30


def _command(*call: Any) -> list[str]:
    specs = [importlib.util.find_spec(name) for name in _LIBRARIES]
    folders = [str(Path(spec.origin).parent.parent) for spec in specs if spec and spec.origin]
    package = str(Path(mmkgc_cli.__file__).resolve().parent)
    return children.isolated("-c", _BOOT, json.dumps([package, folders, call]))


def _errors_of_children() -> int | None:
    """Where the standard error of children goes: nowhere, since libraries print when they abort."""
    return None if os.environ.get("MMKGC_TRACEBACK") else subprocess.DEVNULL


class _Server:
    """The server of this process. Sessions start under a lock; each has a number."""

    def __init__(self) -> None:
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        self._socket.settimeout(_START_SECONDS)
        with other:
            # In a session of its own, so that Ctrl-C does not reach it.
            self._process = subprocess.Popen(
                _command("serve", other.fileno()), stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL, stderr=_errors_of_children(),
                env=os.environ | _ENVIRONMENT, pass_fds=[other.fileno()], start_new_session=True,
            )  # fmt: skip
        self._lock = threading.Lock()
        self._count = 0
        self._codes: dict[int, int] = {}  # of sessions that have ended

    def start(self, request: Mapping[str, Any], descriptors: list[int]) -> int:
        """Starts a child and returns the number of its session."""
        with self._lock:
            self._count += 1
            session = self._count
            data = json.dumps({**request, "id": session}).encode()
            if len(data) > messages.HEADER_BYTES // 32:
                raise ValueError("the arguments of a task are too long")
            socket.send_fds(self._socket, [data], descriptors)
            # Messages about interrupted sessions may come first.
            while not ("pid" in (message := self._message()) and message["id"] == session):
                pass
        return session

    def _message(self) -> dict[str, Any]:
        data = self._socket.recv(messages.HEADER_BYTES)
        if not data:
            raise ConnectionResetError
        message: dict[str, Any] = json.loads(data)
        if "code" in message:
            self._codes[message["id"]] = message["code"]
        return message

    def kill(self, session: int) -> None:
        """Ends the child of a session, if it still runs."""
        with contextlib.suppress(OSError):
            self._socket.send(json.dumps({"id": session, "signal": signal.SIGKILL}).encode())

    def wait(self, session: int) -> int:
        """The exit code of the child of a session."""
        with self._lock:
            while session not in self._codes:
                self._message()
            return self._codes.pop(session)

    def close(self) -> None:
        """Ends the server and its children."""
        self._socket.close()
        self.end()
        self._process.wait()

    def end(self) -> None:
        """Sends SIGKILL to the server and its children; it may still import its libraries."""
        if self._process.poll() is None:  # else, its number may belong to another process
            with contextlib.suppress(OSError):
                os.killpg(self._process.pid, signal.SIGKILL)

    def forget(self) -> None:
        """Closes this end after a fork; the server belongs to the other process."""
        self._socket.close()
        self._process.returncode = 0  # it is not a child of this process


_server: tuple[int, _Server] | None = None
_server_lock = threading.Lock()


def start_server() -> _Server | None:
    """The server of this process; starts it without waiting for it. None where there is no fork."""
    global _server
    if sys.platform != "linux" or os.environ.get("MMKGC_READ_SERVER") == "0":
        return None
    with _server_lock:
        if _server is not None and _server[0] != os.getpid():
            _server[1].forget()
            _server = None
        if _server is None:
            _server = os.getpid(), _Server()
        return _server[1]


def close() -> None:
    """Ends the server of this process; the next session starts another."""
    global _server
    with _server_lock:
        if _server is not None and _server[0] == os.getpid():
            _server[1].close()
        _server = None


def _end_server() -> None:
    """Ends the server of a process that ends at once, without locks, which it may hold."""
    if _server is not None and _server[0] == os.getpid():
        _server[1].end()


atexit.register(close)
interrupts.cleanups.append(_end_server)


class Session:
    """A child that reads one file and answers questions about it, until the session is closed."""

    def __init__(
        self,
        task: str,
        path: Path,
        file: IO[bytes],
        arguments: Mapping[str, Any],
        limits: Limits,
        *,
        fix: str = _FIX_FILE,
    ) -> None:
        """Starts the child.

        Args:
            task: ``MODULE:FUNCTION``, called as ``function(peer, file, arguments)``.
            path: the file, for messages.
            file: the open file; the child reads through the same descriptor.
            arguments: plain JSON.
            limits: limits of the child.
            fix: what to do with a file that cannot be read.
        """
        self._path, self._limits, self._fix = path, limits, fix
        values = dataclasses.asdict(limits)
        self._child: _Forked | _Started
        if start_server() is None:
            self._child = _Started(_command("serve_one", task, str(path), arguments, values))
        else:
            request = {"task": task, "arguments": dict(arguments), "limits": values}
            self._child = _fork(path, request, file)

    def __enter__(self) -> Session:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def close(self) -> None:
        """Ends the child."""
        self._child.close()

    def ask(self, header: Mapping[str, Any], payload: Buffer = b"") -> Message:
        """Sends a question and waits for the answer.

        Raises:
            DataError: the child crashed, needed too much memory or time, answered too much, or
                could not read the file.
        """
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):  # then `answer` reports it
            self._child.send(header, payload, self._limits.answer_seconds)
        return self.answer()

    def answer(self) -> Message:
        """Waits for an answer without a question; see `ask`."""
        try:
            message = self._child.receive(self._limits)
        except TimeoutError:
            self._child.kill()
            self._fail(f"took longer than {self._limits.answer_seconds:g} seconds")
        except TooLong:
            self._child.kill()
            self._fail(f"returned more than {self._limits.answer_bytes:,} bytes")
        except (ConnectionResetError, ValueError):
            message = None
        if message is None:
            self._fail(_reason(self._child.wait()))
        header = message.header
        if "error" in header:
            kind = getattr(errors, str(header["error"]))
            error: MmkgcError = kind.joined([header["text"]])
            self.close()
            raise error
        if "memory" in header:
            self._fail(f"needs more than {self._limits.memory >> 20:,} MiB of memory")
        if "failure" in header:
            self._fail(f"failed: {header['failure']}")
        return message

    def _fail(self, reason: str) -> NoReturn:
        self.close()
        raise DataError(f"{self._path}: reading it {reason}", fix=self._fix)


def _reason(code: int) -> str:
    if code == -getattr(signal, "SIGXCPU", 0):
        return "took too much processor time"
    if code == -getattr(signal, "SIGKILL", 0):
        return "was stopped from outside, perhaps because memory ran out"
    if code < 0:
        with contextlib.suppress(ValueError):
            return f"crashed the HDF5 library ({signal.Signals(-code).name})"
    return f"ended with exit code {code}"


def _fork(path: Path, request: Mapping[str, Any], file: IO[bytes]) -> _Forked:
    """Starts a child; a server that was killed is replaced once."""
    for is_last in (False, True):
        server = start_server()
        assert server is not None
        try:
            return _Forked(server, request, file)
        except OSError as error:
            close()
            if is_last:
                raise MmkgcError(
                    f"{path}: the process that reads foreign files has ended ({error})",
                    fix="run the command again; MMKGC_TRACEBACK=1 shows its messages",
                ) from error
    raise AssertionError


class _Forked:
    """A child of the server, at the other end of a socket."""

    def __init__(self, server: _Server, request: Mapping[str, Any], file: IO[bytes]) -> None:
        self._server = server
        self._socket, other = socket.socketpair()
        try:
            with other:
                self._session = server.start(request, [other.fileno(), file.fileno()])
        except BaseException:
            self._socket.close()
            raise
        self._has_ended = False

    def send(self, header: Mapping[str, Any], payload: Buffer, seconds: float) -> None:
        self._socket.settimeout(seconds)
        messages.send(self._socket.sendall, header, payload)

    def receive(self, limits: Limits) -> Message | None:
        deadline = time.monotonic() + limits.answer_seconds

        def read(view: memoryview) -> int:
            self._socket.settimeout(max(1e-6, deadline - time.monotonic()))
            return self._socket.recv_into(view)

        return messages.receive(read, limits.answer_bytes)

    def kill(self) -> None:
        self._server.kill(self._session)

    def wait(self) -> int:
        try:
            code = self._server.wait(self._session)
        except OSError:
            code = -signal.SIGKILL
            close()
        self._has_ended = True
        return code

    def close(self) -> None:
        self._socket.close()
        if not self._has_ended:
            self.kill()
            self.wait()


class _Started:
    """A process of its own, for systems without fork."""

    def __init__(self, command: list[str]) -> None:
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=_errors_of_children(),
            env=os.environ | _ENVIRONMENT, start_new_session=os.name == "posix",
        )  # fmt: skip

    def send(self, header: Mapping[str, Any], payload: Buffer, seconds: float) -> None:
        pipe = self._process.stdin
        assert pipe is not None
        messages.send(pipe.write, header, payload)
        pipe.flush()

    def receive(self, limits: Limits) -> Message | None:
        pipe = self._process.stdout
        assert pipe is not None
        late = threading.Event()

        def end() -> None:
            late.set()
            self._process.kill()

        timer = threading.Timer(limits.answer_seconds, end)
        timer.start()
        try:
            message = messages.receive(pipe.readinto, limits.answer_bytes)  # type: ignore[attr-defined]
        finally:
            timer.cancel()
        if message is None and late.is_set():
            raise TimeoutError
        return message

    def kill(self) -> None:
        self._process.kill()

    def wait(self) -> int:
        return self._process.wait()

    def close(self) -> None:
        self.kill()
        self.wait()
        for pipe in (self._process.stdin, self._process.stdout):
            with contextlib.suppress(OSError):
                if pipe is not None:
                    pipe.close()
