"""The processes in which a batch runs its steps: forked from a server, or new ones.

Most of the time of a short step goes into importing torch. The server is a process that has
imported torch and the modules of the steps, has run no op, started no thread and touched no GPU;
it forks a child for each step. Steps that use CUDA, and systems other than Linux, start a new
process for each step.

Batch and server talk over a Unix socket, a JSON object for each message. The batch sends the
descriptors of the log and of the locks of a job along; the child inherits them, so that the locks
are held as long as the step runs, even if the batch is killed. The server ends with its batch.
"""

from __future__ import annotations

import atexit
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn, Protocol

import mmkgc_cli
from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.state import children
from mmkgc_cli.state.forks import MESSAGE_BYTES, ForkServer

# Set to 0, every step is started in a new process.
SWITCH = "MMKGC_BATCH_SERVER"
SERVER = (
    "from mmkgc_cli.app import main;"
    "from mmkgc_cli.runs.batches.processes import exit_after, serve; serve(); exit_after(main)"
)
# Imported before the first fork. The server must not import what starts threads.
MODULES = (
    "mmkgc_cli.commands.train", "mmkgc_cli.commands.evaluate",
    "mmkgc_cli.commands.complete", "mmkgc_cli.commands.features", "mmkgc_cli.runs.training",
    "mmkgc_cli.runs.evaluation", "mmkgc_cli.runs.plugins", "mmkgc_cli.runs.loggers",
    "mmkgc_cli.runs.completion", "mmkgc_cli.completion.pipeline", "mmkgc_cli.features.masks",
    "mmkgc_cli.features.merging", "mmkgc_cli.sampling.samplers.filtered", "rich.console",
    "rich.table", "torch._dynamo",
)  # fmt: skip


class Process(Protocol):
    """A running step, as `subprocess.Popen` has it."""

    def poll(self) -> int | None:
        """The exit code, minus the number of a signal; None while it runs."""

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the exit code; raises `subprocess.TimeoutExpired`."""

    def send_signal(self, sig: int) -> None:
        """Sends a signal to a process that still runs."""

    def kill(self) -> None:
        """Sends SIGKILL."""


def start_process(
    arguments: Sequence[str], environment: dict[str, str], log: int, locks: Sequence[int]
) -> Process:
    """Starts ``mmkgc ARGUMENTS`` in a new process.

    Args:
        arguments: of the command.
        environment: variables that differ from those of this process.
        log: descriptor for its output.
        locks: descriptors that it inherits.
    """
    return subprocess.Popen(
        children.mmkgc(*arguments), stdin=subprocess.DEVNULL, stdout=log, stderr=log,
        env=children.environment() | environment, start_new_session=True,
        pass_fds=locks if os.name == "posix" else (),
    )  # fmt: skip


class ServerProcess:
    """A step that the server runs in a child of its own; see `Process`."""

    def __init__(self, server: Server, number: int) -> None:
        self._server, self._number = server, number
        self.pid: int | None = None
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """The exit code, once the server has reported it."""
        self._server.receive()
        return self.returncode

    def wait(self, timeout: float | None = None) -> int:
        """Waits for the exit code; -9 for a process that ended after the server had ended."""
        deadline = None if timeout is None else time.monotonic() + timeout
        while (code := self.poll()) is None:
            if self._server.has_ended and not (self.pid and _is_running(self.pid)):
                return -signal.SIGKILL
            rest = 1.0 if deadline is None else deadline - time.monotonic()
            if rest <= 0:
                raise subprocess.TimeoutExpired("mmkgc", timeout or 0.0)
            self._server.wait(min(rest, 1.0))
        return code

    def send_signal(self, sig: int) -> None:
        """Sends a signal by way of the server, which knows whether the step still runs."""
        if self.poll() is not None:
            return
        if not self._server.has_ended:
            self._server.send({"id": self._number, "signal": int(sig)})
        elif self.pid is not None:
            os.kill(self.pid, sig)

    def kill(self) -> None:
        """Sends SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _is_running(pid: int) -> bool:
    """Whether a process runs; one that has ended may stay until its new parent looks at it."""
    try:
        status = Path(f"/proc/{pid}/stat").read_text()
    except OSError:
        return False
    return status.rpartition(")")[2].split()[0] not in "ZX"


class Server:
    """The batch's side of its server.

    `is_ready` is None while the server imports torch, and False if it cannot fork; steps are then
    started in new processes. `has_ended` is whether it does not answer any more.
    """

    def __init__(self, environment: dict[str, str]) -> None:
        """Starts the server; `environment` is added to that of this process."""
        self._socket, other = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        # The BLAS of numpy starts threads when it is loaded; no step uses it.
        variables = children.environment() | environment | {"OPENBLAS_NUM_THREADS": "1"}
        with other:
            self._process = subprocess.Popen(
                children.python("-c", SERVER, str(other.fileno())),
                stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, env=variables,
                pass_fds=[other.fileno()], start_new_session=True,
            )  # fmt: skip
        self._steps: dict[int, ServerProcess] = {}  # that run
        self._count = 0
        self.has_ended = False
        self.is_ready: bool | None = None

    @staticmethod
    def is_supported() -> bool:
        """Whether this system can have a server."""
        return sys.platform == "linux" and os.environ.get(SWITCH) != "0"

    def start(
        self,
        arguments: Sequence[str],
        environment: dict[str, str],
        log: int,
        locks: Sequence[int],
    ) -> ServerProcess:
        """As `start_process`, in a child of the server."""
        self._count += 1
        process = self._steps[self._count] = ServerProcess(self, self._count)
        self.send(
            {"id": self._count, "arguments": list(arguments), "environment": dict(environment)},
            [log, *locks],
        )
        return process

    def send(self, request: Mapping[str, Any], descriptors: Sequence[int] = ()) -> None:
        """Sends a request with descriptors."""
        try:
            socket.send_fds(self._socket, [json.dumps(request).encode()], descriptors)
        except OSError:
            self._end()

    def receive(self) -> None:
        """Takes all messages that have come."""
        while not self.has_ended:
            try:
                data = self._socket.recv(MESSAGE_BYTES, socket.MSG_DONTWAIT)
            except BlockingIOError:
                return
            except OSError:
                data = b""
            if not data:
                self._end()
                return
            message = json.loads(data)
            if "ready" in message:
                self.is_ready = message["ready"]
            elif "pid" in message:
                self._steps[message["id"]].pid = message["pid"]
            else:
                self._steps.pop(message["id"]).returncode = message["code"]

    def _end(self) -> None:
        self.has_ended, self.is_ready = True, False

    def check(self) -> None:
        """Checks that nobody ended the server while steps run in it.

        Raises:
            MmkgcError: since their exit codes are then unknown.
        """
        self.receive()
        if self.has_ended and self._steps:
            raise MmkgcError(
                "the process that starts the steps of the batch was killed",
                fix=f"run the same command again; {SWITCH}=0 starts a new process for each step",
            )

    def wait(self, seconds: float) -> None:
        """Waits for a message, but no longer than `seconds`."""
        if self.has_ended:
            time.sleep(min(seconds, 0.05))
        else:
            select.select([self._socket], [], [], seconds)

    def close(self) -> None:
        """Ends the server; steps that still run go on."""
        self._end()
        self._socket.close()
        self._process.kill()  # it may still be importing
        self._process.wait()


def count_gpus() -> int:
    """The number of GPUs that torch can use; without a driver, torch is not imported."""
    drivers = ("nvidia*", "nvhost*", "nvgpu*", "dxg", "kfd")
    if sys.platform == "darwin":
        return 0
    if sys.platform == "linux" and not any(any(Path("/dev").glob(name)) for name in drivers):
        return 0
    import torch

    return torch.cuda.device_count()


# The server's side


def serve() -> None:
    """Forks a child for each request; returns only in the children, set up to run the command."""
    for name in MODULES:
        importlib.import_module(name)
    os.environ.pop("OPENBLAS_NUM_THREADS", None)
    # Collecting garbage would touch, and so copy, pages that children share.
    gc.collect()
    gc.freeze()
    server = ForkServer(int(sys.argv[1]))
    server.reply(ready=len([*Path("/proc/self/task").iterdir()]) == 1)
    for request, descriptors in server.requests():
        if server.fork(request["id"], descriptors):
            _become_step(request, descriptors)
            return
    os._exit(0)  # the batch has ended; its steps go on and hold its locks


def exit_after(command: Callable[[], None]) -> NoReturn:
    """Runs a command and exits as Python would, but leaves freeing all modules to the system."""
    code: Any = 0
    try:
        command()
    except SystemExit as error:
        code = error.code or 0
    if threading.active_count() > 1 or not isinstance(code, int):
        sys.exit(code)
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


def _become_step(request: Mapping[str, Any], descriptors: Sequence[int]) -> None:
    """Makes a forked child what a new process would be; the locks just stay open."""
    os.setsid()
    log, *_ = descriptors
    os.dup2(log, 1)
    os.dup2(log, 2)
    os.close(log)
    os.environ.update(request["environment"])
    sys.argv = [str(Path(mmkgc_cli.__file__).with_name("__main__.py")), *request["arguments"]]
