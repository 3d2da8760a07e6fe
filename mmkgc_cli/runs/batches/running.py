"""Running the jobs of a batch: commands in processes of their own, none of them twice."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any, Protocol

import tomli_w

from mmkgc_cli.runs.batches.folder import (
    BatchFolder,
    Ending,
    JobFolder,
    JobState,
    is_ranked,
    is_trained,
)
from mmkgc_cli.runs.batches.plan import Job
from mmkgc_cli.runs.status import State, is_run
from mmkgc_cli.state.atomic import make_folder, storage_errors, write_json, write_text
from mmkgc_cli.state.locks import try_lock
from mmkgc_cli.state.signals import StopRequest

# Seconds between two looks at the processes, and at what others are doing.
LOOK, LOOK_AT_OTHERS = 0.05, 1.0
# Seconds that a command has to save what it has before it is killed.
TO_SAVE = 60.0


class Watcher(Protocol):
    """A display that is told how a batch goes."""

    def started(self, job: Job, step: str) -> None:
        """A command of a job has begun."""

    def ended(self, job: Job, ending: Ending) -> None:
        """A job has come to its end, here or elsewhere."""

    def waiting(self, jobs: Sequence[Job]) -> None:
        """These are run by other processes, and nothing else is left."""

    def tick(self) -> None:
        """Called all the time."""


@dataclass(frozen=True)
class Options:
    """How to run."""

    split: str = "test"
    jobs: int = 1  # at a time
    max_minutes: float = 0.0  # of an attempt; 0: as long as it takes
    threads: int = 0  # of each job; 0: the processors divided among them
    gpus: int = 0  # that jobs take in turns
    retry: bool = False  # those that failed


@dataclass
class _Running:
    job: Job
    folder: JobFolder
    locks: list[IO[bytes]]
    slot: int
    attempts: int
    before: float  # seconds of earlier attempts
    start: float = field(default_factory=time.monotonic)
    step: str = ""
    process: subprocess.Popen[bytes] | None = None
    said_from: int = 0  # where in the log the running command begins
    late: bool = False
    asked_at: float = 0.0  # when it was asked to stop

    @property
    def seconds(self) -> float:
        return self.before + time.monotonic() - self.start


class _Busy(Exception):
    """What comes next is being made by somebody else."""


class BatchRunner:
    """Runs jobs, several at a time, until all have ended, here or in other processes."""

    def __init__(
        self, folder: BatchFolder, jobs: Sequence[Job], options: Options, watcher: Watcher
    ) -> None:
        self.folder, self.options, self.watcher = folder, options, watcher
        self.left = list(jobs)
        self.running: list[_Running] = []
        self.endings: dict[str, Ending] = {}
        self._to_retry = {job.name for job in jobs} if options.retry else set()
        self._elsewhere: set[str] = set()
        self._looked_at = 0.0

    def run(self) -> dict[str, Ending]:
        """Runs everything; endings by the names of jobs.

        Raises:
            Interrupted: after a signal; commands have saved what they had.
        """
        for job in self.left:
            self._describe(job)
        with StopRequest() as stop:
            try:
                while (self.left or self.running) and not stop.asked:
                    self._fill()
                    self._look()
                    self.watcher.tick()
                    time.sleep(LOOK)
            finally:
                self._stop_all()
            stop.raise_if_asked(
                f"stopped by a signal; {len(self.endings)} of "
                f"{len(self.endings) + len(self.left)} jobs have ended; go on with the same command"
            )
        return self.endings

    # Which job comes next

    def _fill(self) -> None:
        """Starts jobs where there is room; those of others are looked at now and then."""
        look = time.monotonic() - self._looked_at > LOOK_AT_OTHERS
        if look:
            self._looked_at = time.monotonic()
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
            # Only who has the lock may believe what is there.
            ending = folder.ended()
            if ending and ending.state is JobState.failed and job.name in self._to_retry:
                self._to_retry.remove(job.name)
                folder.ending.unlink()
                ending = None
            if ending:
                lock.close()
                self._end(job, ending)
                continue
            self._begin(job, folder, lock)
        if look and self.left and len(self._elsewhere) == len(self.left):
            self.watcher.waiting(self.left)

    def _describe(self, job: Job) -> None:
        folder = self.folder.job(job.name)
        make_folder(folder.path)
        if folder.about.exists():
            return
        write_text(folder.config, tomli_w.dumps(_configuration(self.folder, job)))
        about = {
            **job.axes, "varied": dict(job.varied), "split": self.options.split,
        }  # fmt: skip
        write_json(folder.about, about)

    def _begin(self, job: Job, folder: JobFolder, lock: IO[bytes]) -> None:
        attempts, seconds = folder.efforts()
        slots = set(range(self.options.jobs)) - {r.slot for r in self.running}
        running = _Running(job, folder, [lock], min(slots), attempts + 1, seconds)
        self.running.append(running)
        write_json(folder.effort, {"attempts": running.attempts, "seconds": seconds})
        self._next(running)

    # What a job does

    def _look(self) -> None:
        for running in list(self.running):
            if running.process is None:
                self._next(running)  # waits for somebody else
                continue
            code = running.process.poll()
            limit = 60 * self.options.max_minutes
            late = limit and time.monotonic() - running.start > limit
            if code is None and late and not running.late:
                running.late = True
                self._ask_to_stop(running)
            overdue = running.asked_at and time.monotonic() - running.asked_at > TO_SAVE
            if code is None and overdue:
                running.process.kill()
            if code is not None:
                self._done(running, code)

    def _next(self, running: _Running) -> None:
        """Starts the next command of a job, or ends it."""
        try:
            found = next(self._commands(running), None)
        except _Busy:
            return
        if found is None:
            self._finish(running, Ending(JobState.finished, running.seconds, running.attempts))
            return
        running.step, arguments = found
        environment = os.environ | self._resources(running.slot)
        with storage_errors(running.folder.log), running.folder.log.open("ab") as log:
            log.write(f"$ mmkgc {' '.join(arguments)}\n".encode())
            log.flush()
            running.said_from = log.tell()
            # Whoever is killed leaves its commands running: they keep the job's locks.
            locks = [lock.fileno() for lock in running.locks]
            running.process = subprocess.Popen(
                [sys.executable, "-m", "mmkgc_cli", *arguments],
                stdin=subprocess.DEVNULL, stdout=log, stderr=log, env=environment,
                pass_fds=locks if os.name == "posix" else (), start_new_session=True,
            )  # fmt: skip
        self.watcher.started(running.job, running.step)

    def _commands(self, running: _Running) -> Iterator[tuple[str, list[str]]]:
        """What is left to do, in order."""
        job, folder = running.job, running.folder
        for shared in job.stores:
            path = self.folder.stores / shared.name
            if not path.exists():
                self._take_store(running, path)
                if not path.exists():  # made while the lock was waited for
                    yield shared.step, shared.command(path)
            self._release_store(running)
        run = folder.trained()
        name = str(folder.run.path)
        if not is_trained(run):
            if is_run(folder.run.path) and run.state in (State.interrupted, State.failed):
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

    def _done(self, running: _Running, code: int) -> None:
        """A command has ended."""
        running.process = None
        effort = {"attempts": running.attempts, "seconds": running.seconds}
        write_json(running.folder.effort, effort)
        if code == 0:
            self._next(running)
            return
        if running.late:
            minutes = f"{self.options.max_minutes:g}"
            message = f"took more than {minutes} min; --retry-failed goes on with it"
        else:
            message = _reason(running.folder.log, running.said_from, code)
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
        self.watcher.ended(job, ending)

    # Processes

    def _resources(self, slot: int) -> dict[str, str]:
        """What a job may use: its part of the processors, and one GPU."""
        share = max(1, (os.cpu_count() or 1) // self.options.jobs)
        threads = str(self.options.threads or share)
        found = {"OMP_NUM_THREADS": threads, "MKL_NUM_THREADS": threads}
        if self.options.gpus:
            seen = os.environ.get("CUDA_VISIBLE_DEVICES", "")
            names = [name for name in seen.split(",") if name]
            gpu = slot % self.options.gpus
            found["CUDA_VISIBLE_DEVICES"] = names[gpu] if gpu < len(names) else str(gpu)
        return found

    def _ask_to_stop(self, running: _Running) -> None:
        if running.process and running.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                running.process.send_signal(signal.SIGTERM)
            running.asked_at = time.monotonic()

    def _stop_all(self) -> None:
        """Ends what still runs; trainings save first."""
        for running in self.running:
            self._ask_to_stop(running)
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


def _configuration(folder: BatchFolder, job: Job) -> dict[str, Any]:
    """For `mmkgc train --config`: the job's settings, with the stores that are made for it."""
    values = {section: dict(entries) for section, entries in job.values.items() if entries}
    for shared in job.stores:
        values["features"][shared.modality] = str(folder.stores / shared.name)
    return {"scorer": job.scorer, **values}


def _reason(log: Path, start: int, code: int) -> str:
    """Why a command failed, in its own words where it had any."""
    with storage_errors(log), log.open("rb") as file:
        file.seek(start)
        said = file.read().decode(errors="backslashreplace").splitlines()
    errors = [line.removeprefix("error: ") for line in said if line.startswith("error: ")]
    if errors:
        return errors[0] + (f" (and {len(errors) - 1} more)" if len(errors) > 1 else "")
    if code < 0:
        name = signal.Signals(-code).name
        hint = "; out of memory, perhaps" if -code == signal.SIGKILL else ""
        return f"killed by {name}{hint}"
    last = next((line for line in reversed(said) if line.strip()), "it said nothing")
    return f"exit code {code}: {last.strip()}"
