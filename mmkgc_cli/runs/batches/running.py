"""Runs the jobs of a batch: commands in processes of their own, none of them twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import tomli_w

from mmkgc_cli.runs.batches.folder import (
    BatchFolder,
    Ending,
    JobFolder,
    JobState,
    is_ranked,
    is_trained,
)
from mmkgc_cli.runs.batches.processes import Process, Server, start_process
from mmkgc_cli.runs.status import State, is_run
from mmkgc_cli.state import files
from mmkgc_cli.state.atomic import make_folder, storage_errors, write_json, write_text
from mmkgc_cli.state.locks import Lock, try_lock
from mmkgc_cli.state.signals import StopRequest

if TYPE_CHECKING:
    from mmkgc_cli.runs.batches.plan import Job

# Seconds between two looks at the processes, and at the jobs of other processes.
LOOK, LOOK_AT_OTHERS = 0.05, 1.0
# Seconds that a command has to save before it is killed.
TO_SAVE = 60.0


class BatchCallback(Protocol):
    """Displays the progress of a batch."""

    def started(self, job: Job, step: str) -> None:
        """A step of a job was started."""

    def ended(self, job: Job, ending: Ending) -> None:
        """A job ended, here or in another process."""

    def waiting(self, jobs: Sequence[Job]) -> None:
        """All jobs that are left run in other processes."""

    def tick(self) -> None:
        """Called after every look at the processes."""


@dataclass(frozen=True)
class Options:
    """How to run the jobs."""

    split: str = "test"
    jobs: int = 1  # at a time
    max_minutes: float = 0.0  # of an attempt; 0: no limit
    threads: int = 0  # of each job; 0: an equal part of the processors
    gpus: int = 0  # assigned to jobs in turn
    retry: bool = False  # also run failed jobs


@dataclass
class _Running:
    job: Job
    folder: JobFolder
    locks: list[Lock]
    slot: int
    attempts: int
    seconds_before: float  # of earlier attempts
    start: float = field(default_factory=time.monotonic)
    step: str = ""
    process: Process | None = None
    log_offset: int = 0  # where the output of the running command begins
    is_late: bool = False
    stopped_at: float = 0.0  # when SIGTERM was sent

    @property
    def seconds(self) -> float:
        return self.seconds_before + time.monotonic() - self.start


class _Busy(Exception):
    """The next step has to wait for another process."""


class BatchRunner:
    """Runs jobs, several at a time, until all have ended, here or in other processes."""

    def __init__(
        self, folder: BatchFolder, jobs: Sequence[Job], options: Options, callback: BatchCallback
    ) -> None:
        self.folder, self.options, self.callback = folder, options, callback
        self.left = list(jobs)
        self.running: list[_Running] = []
        self.endings: dict[str, Ending] = {}
        self._to_retry = {job.name for job in jobs} if options.retry else set()
        self._elsewhere: set[str] = set()
        self._last_look = 0.0
        self._server: Server | None = None

    def run(self) -> dict[str, Ending]:
        """Runs all jobs; returns their endings by name.

        Raises:
            Interrupted: after a signal, once the commands have saved.
            MmkgcError: when the server was killed.
        """
        for job in self.left:
            self._describe(job)
        with StopRequest() as stop:
            try:
                while (self.left or self.running) and not stop.asked:
                    self._fill()
                    self._look()
                    self.callback.tick()
                    time.sleep(LOOK)
            finally:
                self._stop_all()
            stop.raise_if_asked(
                f"stopped by a signal; {len(self.endings)} of "
                f"{len(self.endings) + len(self.left)} jobs have ended; go on with the same command"
            )
        return self.endings

    # Which job is next

    def _fill(self) -> None:
        """Starts as many jobs as may run at a time."""
        look = time.monotonic() - self._last_look > LOOK_AT_OTHERS
        if look:
            self._last_look = time.monotonic()
            self._elsewhere.clear()
        here = {running.job.name for running in self.running}
        for job in list(self.left):
            if len(self.running) >= self.options.jobs:
                return
            if job.name in here or job.name in self._elsewhere:
                continue
            folder = self.folder.job(job.name)
            lock = try_lock(folder.lock)
            if lock is None:
                self._elsewhere.add(job.name)
                continue
            # Records may be out of date until the lock is held.
            ending = folder.ended()
            if ending and ending.state is JobState.failed and job.name in self._to_retry:
                self._to_retry.remove(job.name)
                files.unlink(folder.ending)
                ending = None
            if ending:
                lock.close()
                self._end(job, ending)
                continue
            self._begin(job, folder, lock)
        if look and self.left and len(self._elsewhere) == len(self.left):
            self.callback.waiting(self.left)

    def _describe(self, job: Job) -> None:
        folder = self.folder.job(job.name)
        make_folder(folder.path)
        if folder.description.exists():
            return
        write_text(folder.config, tomli_w.dumps(_configuration(self.folder, job)))
        write_json(
            folder.description,
            {**job.axes, "varied": dict(job.varied), "split": self.options.split},
        )

    def _begin(self, job: Job, folder: JobFolder, lock: Lock) -> None:
        attempts, seconds = folder.efforts()
        slots = set(range(self.options.jobs)) - {running.slot for running in self.running}
        running = _Running(job, folder, [lock], min(slots), attempts + 1, seconds)
        self.running.append(running)
        write_json(folder.effort, {"attempts": running.attempts, "seconds": seconds})
        self._next(running)

    # What a job does

    def _look(self) -> None:
        """Looks at the processes of all jobs."""
        if self._server:
            self._server.check()
        for running in list(self.running):
            if running.process is None:
                self._next(running)  # another process may have finished by now
                continue
            code = running.process.poll()
            limit = 60 * self.options.max_minutes
            is_late = limit and time.monotonic() - running.start > limit
            if code is None and is_late and not running.is_late:
                running.is_late = True
                self._send_stop(running)
            overdue = running.stopped_at and time.monotonic() - running.stopped_at > TO_SAVE
            if code is None and overdue:
                running.process.kill()
            if code is not None:
                self._finish_step(running, code)

    def _next(self, running: _Running) -> None:
        """Starts the next command of a job, or ends the job."""
        try:
            command = next(self._commands(running), None)
            if command is None:
                ending = Ending(JobState.finished, running.seconds, running.attempts)
                self._finish(running, ending)
                return
            running.step, arguments = command
            server = self._server_for(running)
        except _Busy:
            return
        start = server.start if server else start_process
        with storage_errors(running.folder.log), files.open_file(running.folder.log, "ab") as log:
            log.write(f"$ mmkgc {' '.join(arguments)}\n".encode())
            log.flush()
            running.log_offset = log.tell()
            # The command inherits the locks: if the batch is killed, they stay with the command.
            locks = [lock.fileno() for lock in running.locks] if os.name == "posix" else []
            running.process = start(arguments, self._resources(running.slot), log.fileno(), locks)
        self.callback.started(running.job, running.step)

    def _server_for(self, running: _Running) -> Server | None:
        """The server that runs the next step, or None for a new process.

        Raises:
            _Busy: while the server is importing torch.
        """
        if not Server.is_supported() or self._may_use_cuda(running):
            return None
        if self._server is None:
            self._server = Server(self._resources(running.slot))
        self._server.receive()
        if self._server.is_ready is None:
            raise _Busy
        return self._server if self._server.is_ready else None

    def _may_use_cuda(self, running: _Running) -> bool:
        device = "auto"  # of evaluation and completion
        if running.step == "mask":
            device = "cpu"
        elif running.step == "train":
            device = running.job.config.training.device
        return device == "cuda" or (device == "auto" and self.options.gpus > 0)

    def _commands(self, running: _Running) -> Iterator[tuple[str, list[str]]]:
        """The steps that are left, in order: name and arguments."""
        job, folder = running.job, running.folder
        for store in job.stores:
            path = self.folder.stores / store.name
            if not path.exists():
                self._take_store(running, path)
                if not path.exists():  # it may have been made before the lock was taken
                    yield store.step, store.command(path)
            self._release_store(running)
        run = folder.trained()
        name = str(folder.run.path)
        if not is_trained(run):
            # Without a configuration, as after a full disk, there is nothing to resume.
            begun = is_run(folder.run.path) and folder.run.config.is_file()
            if begun and run.state in (State.interrupted, State.failed):
                yield "train", ["train", "--resume", name]
            else:
                yield "train", [
                    "train", job.scorer, "--graph", job.graph, "--run", name, "--config",
                    str(folder.config), "--overwrite",
                ]  # fmt: skip
        if not is_ranked(run, self.options.split):
            yield "eval", ["eval", name, "--split", self.options.split]

    def _take_store(self, running: _Running, path: Path) -> None:
        make_folder(path.parent)
        if len(running.locks) > 1:
            return
        lock = try_lock(path.with_name(path.name + ".lock"))
        if lock is None:
            raise _Busy
        running.locks.append(lock)

    def _release_store(self, running: _Running) -> None:
        while len(running.locks) > 1:
            running.locks.pop().close()

    def _finish_step(self, running: _Running, code: int) -> None:
        """Records that a command ended with `code` and starts the next one."""
        running.process = None
        effort = {"attempts": running.attempts, "seconds": running.seconds}
        write_json(running.folder.effort, effort)
        if code == 0:
            self._next(running)
            return
        if running.is_late:
            minutes = f"{self.options.max_minutes:g}"
            message = f"took more than {minutes} min; resume it with --retry-failed"
        else:
            message = _failure(running.folder.log, running.log_offset, code)
        self._finish(
            running,
            Ending(JobState.failed, running.seconds, running.attempts, running.step, code, message),
        )

    def _finish(self, running: _Running, ending: Ending) -> None:
        running.folder.end(ending)
        self.running.remove(running)
        for lock in running.locks:
            lock.close()
        self._end(running.job, ending)

    def _end(self, job: Job, ending: Ending) -> None:
        self.left.remove(job)
        self.endings[job.name] = ending
        self.callback.ended(job, ending)

    # Processes

    def _resources(self, slot: int) -> dict[str, str]:
        """Variables that limit a job to its part of the processors and to one GPU."""
        share = max(1, (os.cpu_count() or 1) // self.options.jobs)
        threads = str(self.options.threads or share)
        variables = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if self.options.gpus:
            visible = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            names = [name for name in visible.split(",") if name]
            gpu = slot % self.options.gpus
            variables["CUDA_VISIBLE_DEVICES"] = names[gpu] if gpu < len(names) else str(gpu)
        return variables

    def _send_stop(self, running: _Running) -> None:
        if running.process and running.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                running.process.send_signal(signal.SIGTERM)
            running.stopped_at = time.monotonic()

    def _stop_all(self) -> None:
        """Stops the commands that still run, which save first, and the server."""
        for running in self.running:
            self._send_stop(running)
        for running in self.running:
            if running.process:
                try:
                    running.process.wait(TO_SAVE)
                except subprocess.TimeoutExpired:
                    running.process.kill()
                    running.process.wait()
            effort = {"attempts": running.attempts, "seconds": running.seconds}
            write_json(running.folder.effort, effort)
            for lock in running.locks:
                lock.close()
        if self._server:
            self._server.close()


def _configuration(folder: BatchFolder, job: Job) -> dict[str, Any]:
    """The settings of a job for `mmkgc train --config`, with the stores that are made for it."""
    values = {section: dict(entries) for section, entries in job.values.items() if entries}
    for store in job.stores:
        values["features"][store.modality] = str(folder.stores / store.name)
    return {"scorer": job.scorer, **values}


def _failure(log: Path, start: int, code: int) -> str:
    """Why a command failed: its error message, or else how it ended."""
    with storage_errors(log), log.open("rb") as file:
        file.seek(start)
        lines = file.read().decode(errors="backslashreplace").splitlines()
    errors = [line.removeprefix("error: ") for line in lines if line.startswith("error: ")]
    if errors:
        return errors[0] + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; out of memory, perhaps" if -code == signal.SIGKILL else ""
        return f"killed by {name}{hint}"
    last = next((line for line in reversed(lines) if line.strip()), "no output")
    return f"exit code {code}: {last.strip()}"
