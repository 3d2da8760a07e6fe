"""Starts mmkgc commands as processes, sends them signals, and checks how they end."""

from __future__ import annotations

import contextlib
import ctypes
import os
import resource
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from mmkgc_cli.runs.batches.processes import Process, Server, start_process
from mmkgc_cli.state import sandbox
from tests.kill.contents import Violation, leftovers

# A process that ignores a signal for longer hangs.
SECONDS_TO_STOP = 20.0
SECONDS_TO_END = 180.0
# A server that a command started may end after it; while it starts, it imports its libraries.
SECONDS_FOR_CHILDREN = 20.0
_SET_CHILD_SUBREAPER = 36  # of prctl

SIGNALS = {
    "SIGKILL": signal.SIGKILL,
    "SIGTERM": signal.SIGTERM,
    "SIGINT": signal.SIGINT,
    "SIGINT twice": signal.SIGINT,
    "SIGHUP": signal.SIGHUP,
}


@dataclass(frozen=True)
class Disturbance:
    """A signal that a command receives.

    Attributes:
        name: a key of `SIGNALS`.
        target: "process", "group", or, for a batch, "child" or "tree" (all its processes).
        seconds: from the start to the signal.
        at_write: wait for the next write after `seconds`.
        new_interpreter: start Python anew instead of forking a process that has imported torch.
        pause: seconds between two SIGINT.
        choice: a number in [0, 1) that selects a child.
    """

    name: str
    target: str
    seconds: float
    at_write: bool
    new_interpreter: bool
    pause: float
    choice: float

    @property
    def is_graceful(self) -> bool:
        """Whether the command can clean up before it ends."""
        return self.name in ("SIGTERM", "SIGINT", "SIGHUP") and self.target in ("process", "group")

    def __str__(self) -> str:
        start = "a new interpreter" if self.new_interpreter else "a fork"
        when = f"{self.seconds:.3f} s" + (", at the next write" if self.at_write else "")
        return f"{self.name} to the {self.target} after {when}, in {start}"


@dataclass(frozen=True)
class Outcome:
    """The end of a command: its exit code, minus the number of a signal, and its output."""

    code: int
    output: str
    was_signalled: bool


class Launcher:
    """Starts commands. Processes without a parent become children of this process."""

    def __init__(self) -> None:
        """Starts a server that forks commands; a new interpreter takes seconds to start."""
        ctypes.CDLL(None, use_errno=True).prctl(_SET_CHILD_SUBREAPER, 1, 0, 0, 0)
        self._server = Server({})
        while self._server.is_ready is None:
            self._server.wait(1.0)
            self._server.receive()
        sandbox.start_server()  # which checks of stores use; else, it would pass for an orphan
        self._own = set(_children(os.getpid()))

    def __enter__(self) -> Launcher:
        return self

    def __exit__(self, *_: object) -> None:
        self._server.close()

    def run(
        self, arguments: Sequence[str], environment: Mapping[str, str] = MappingProxyType({})
    ) -> None:
        """Runs a command to its end.

        Raises:
            Violation: when it fails or leaves processes.
        """
        outcome = self.attempt(arguments, environment=environment)
        if outcome.code:
            raise Violation(f"mmkgc {' '.join(arguments)}: exit code {outcome.code}: "
                            f"{outcome.output}")  # fmt: skip

    def attempt(
        self,
        arguments: Sequence[str],
        folder: Path = Path(),
        disturbance: Disturbance | None = None,
        file_bytes: int | None = None,
        *,
        environment: Mapping[str, str] = MappingProxyType({}),
    ) -> Outcome:
        """Runs a command and disturbs it.

        Args:
            arguments: of mmkgc.
            folder: that it writes to.
            disturbance: the signal that it receives, if any.
            file_bytes: limit of the size of each file that it writes.
            environment: variables that differ from those of this process.

        Raises:
            Violation: when it does not end, or leaves processes after a graceful stop.
        """
        with tempfile.TemporaryFile() as output:
            start = self._server.start
            process: Process
            if disturbance and disturbance.new_interpreter:
                process = start_process(arguments, dict(environment), output.fileno(), ())
            else:
                process = start(arguments, dict(environment), output.fileno(), ())
            pid = self._pid(process)
            if file_bytes is not None:
                with contextlib.suppress(ProcessLookupError):
                    resource.prlimit(pid, resource.RLIMIT_FSIZE, (file_bytes, file_bytes))
            try:
                was_signalled = disturbance is not None and self._disturb(
                    process, pid, folder, disturbance
                )
                must_stop = disturbance and was_signalled and disturbance.target != "child"
                code = self._wait(process, SECONDS_TO_STOP if must_stop else SECONDS_TO_END)
            except BaseException:
                for number in [pid, *_descendants(pid)]:
                    _send(number, signal.SIGKILL)
                process.wait()
                self.end_orphans()
                raise
            output.seek(0)
            text = output.read().decode(errors="replace").strip()
        outcome = Outcome(code, text, was_signalled)
        if disturbance is None or disturbance.is_graceful or not was_signalled:
            self._require_no_orphans()
        return outcome

    @staticmethod
    def _pid(process: Process) -> int:
        deadline = time.monotonic() + SECONDS_TO_STOP
        while (pid := getattr(process, "pid", None)) is None:
            if process.poll() is not None or time.monotonic() > deadline:
                raise Violation("the server did not start the command")
            time.sleep(0.0005)
        return int(pid)

    @staticmethod
    def _wait(process: Process, seconds: float) -> int:
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            raise Violation(f"does not end: still running after {seconds:.0f} s") from None

    @staticmethod
    def _disturb(process: Process, pid: int, folder: Path, disturbance: Disturbance) -> bool:
        """Waits and sends the signal; whether the process still ran then."""
        before = set(leftovers(folder))
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(disturbance.seconds)
        number = SIGNALS[disturbance.name]
        deadline = time.monotonic() + SECONDS_TO_END
        while process.poll() is None and (
            (disturbance.at_write and not _writes(folder, before))
            # A forked process is a command once it has handlers.
            or (
                number != signal.SIGKILL and not disturbance.new_interpreter and not _is_set_up(pid)
            )
        ):
            if time.monotonic() > deadline:
                raise Violation(f"does not end: still running after {SECONDS_TO_END:.0f} s")
            time.sleep(0.0002)
        if process.poll() is not None:
            return False
        if disturbance.target == "child":
            children = sorted(_descendants(pid))
            if not children:
                return False
            _send(children[int(disturbance.choice * len(children))], number)
        elif disturbance.target == "tree":
            for target in [pid, *_descendants(pid)]:
                _send(target, number)
        else:
            send = _send_group if disturbance.target == "group" else _send
            send(pid, number)
            if disturbance.name == "SIGINT twice":
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(disturbance.pause)
                if process.poll() is None:
                    send(pid, number)
        return True

    def orphans(self) -> list[int]:
        """Processes of ended commands."""
        found = []
        for pid in set(_children(os.getpid())) - self._own:
            with contextlib.suppress(ChildProcessError):
                if os.waitpid(pid, os.WNOHANG)[0] == 0:
                    found.append(pid)
        return found

    def _require_no_orphans(self) -> None:
        deadline = time.monotonic() + SECONDS_FOR_CHILDREN
        while found := self.orphans():
            if time.monotonic() > deadline:
                command = Path(f"/proc/{found[0]}/cmdline").read_bytes().replace(b"\0", b" ")
                self.end_orphans()
                raise Violation(f"left a process: {command.decode()[:200]}")
            time.sleep(0.01)

    def wait_for_orphans(self) -> None:
        """Waits for the steps of a killed batch.

        Raises:
            Violation: when they do not end.
        """
        deadline = time.monotonic() + SECONDS_TO_END
        while self.orphans():
            if time.monotonic() > deadline:
                self.end_orphans()
                raise Violation("the steps of a killed batch do not end")
            time.sleep(0.01)

    def end_orphans(self) -> None:
        """Kills the processes of ended commands."""
        deadline = time.monotonic() + SECONDS_TO_STOP
        while (found := self.orphans()) and time.monotonic() < deadline:
            for pid in found:
                for number in [pid, *_descendants(pid)]:
                    _send(number, signal.SIGKILL)
            time.sleep(0.01)


def _send(pid: int, number: int) -> None:
    with contextlib.suppress(ProcessLookupError):
        os.kill(pid, number)


def _send_group(pid: int, number: int) -> None:
    try:
        os.killpg(pid, number)
    except ProcessLookupError:  # it has not made its group yet
        _send(pid, number)


def _writes(folder: Path, before: set[Path]) -> bool:
    with contextlib.suppress(OSError):  # files are renamed meanwhile
        return any(path not in before for path in folder.rglob(".*.tmp"))
    return False


def _is_set_up(pid: int) -> bool:
    """Whether a process handles SIGTERM."""
    with contextlib.suppress(OSError):
        for line in Path(f"/proc/{pid}/status").read_text().splitlines():
            if line.startswith("SigCgt:"):
                return bool(int(line.split()[1], 16) >> (signal.SIGTERM - 1) & 1)
    return False


def _parents() -> Iterator[tuple[int, int]]:
    for entry in os.scandir("/proc"):
        if entry.name.isdecimal():
            with contextlib.suppress(OSError):
                text = Path(entry.path, "stat").read_text()
                yield int(entry.name), int(text.rpartition(")")[2].split()[1])


def _children(pid: int) -> list[int]:
    return [child for child, parent in _parents() if parent == pid]


def _descendants(pid: int) -> list[int]:
    parents = dict(_parents())
    found = [pid]
    for parent in found:
        found += [child for child, its_parent in parents.items() if its_parent == parent]
    return found[1:]
