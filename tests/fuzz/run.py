"""Counts inputs of all targets: python -m tests.fuzz.run --inputs 20000 --seed 0 --jobs 2.

The inputs follow from the seed. Workers run them; a worker that dies or hangs is replaced, and its
input is a failure, like a wrong result or an error that is not one line. A failure names the
command that runs its input alone, with the traceback.
"""

from __future__ import annotations

import argparse
import collections
import contextlib
import json
import mmap
import os
import queue
import signal
import subprocess
import sys
import tempfile
import threading
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from tests.fuzz.worker import PROGRESS

_CHUNK = 500
_SHOWN = 3  # failures per target and reason


@dataclass
class Tally:
    """Counts of one target."""

    inputs: int = 0
    accepted: int = 0
    seconds: float = 0.0
    slowest: float = 0.0
    slow_number: int = 0
    memory: int = 0  # the largest resident set of a worker, in KiB
    failures: dict[str, list[int]] = field(default_factory=lambda: collections.defaultdict(list))

    @property
    def refused(self) -> int:
        """Inputs that ended with one line."""
        return self.inputs - self.accepted - sum(map(len, self.failures.values()))


def plan(names: list[str], inputs: int) -> collections.deque[tuple[str, int, int]]:
    """Chunks ``(target, start, stop)`` with `inputs` in all, by the shares of the targets."""
    from tests.fuzz.targets import TARGETS

    total = sum(TARGETS[name].share for name in names)
    chunks = []
    done, cumulative = 0, 0
    for name in names:
        cumulative += TARGETS[name].share
        count = inputs * cumulative // total - done
        done += count
        chunks += [
            (start / count, name, start, min(start + _CHUNK, count))
            for start in range(0, count, _CHUNK)
        ]
    # All targets advance together, so that a run that is stopped has met all of them.
    return collections.deque(chunk[1:] for chunk in sorted(chunks))


class Runner:
    """Workers, their chunks, and the tallies."""

    def __init__(
        self,
        names: list[str],
        inputs: int,
        seed: int,
        seconds: float,
        module: str = "tests.fuzz.targets",
    ) -> None:
        """Plans `inputs` for the targets `names` of a module; one hangs after `seconds`."""
        self.seed, self.seconds, self.module = seed, seconds, module
        self.chunks = plan(names, inputs)
        self.tallies = {name: Tally() for name in names}
        self.lock = threading.Lock()

    def run(self, jobs: int) -> None:
        """Runs all chunks in `jobs` workers."""
        threads = [threading.Thread(target=self._serve, daemon=True) for _ in range(jobs)]
        for thread in threads:
            thread.start()
        shown = time.monotonic()
        while any(thread.is_alive() for thread in threads):
            time.sleep(0.2)
            if time.monotonic() - shown > 60:
                shown = time.monotonic()
                print(f"{sum(t.inputs for t in self.tallies.values()):,} inputs", flush=True)

    def _next(self) -> tuple[str, int, int] | None:
        with self.lock:
            return self.chunks.popleft() if self.chunks else None

    def fail(self, name: str, number: int, reason: str, text: str) -> None:
        """Counts a failure, and prints the first ones of each reason."""
        with self.lock:
            key = " ".join(reason.split())[:120]
            numbers = self.tallies[name].failures[key]
            numbers.append(number)
            if len(numbers) <= _SHOWN:
                reproduce = f"reproduce: {self.command(name, number)}"
                print(f"FAILURE in {name}: {reason}\n{text}\n{reproduce}", flush=True)

    def command(self, name: str, number: int) -> str:
        """The command that runs one input."""
        return f"python -m tests.fuzz.run --target {name} --seed {self.seed} --input {number}"

    def _serve(self) -> None:
        with tempfile.NamedTemporaryFile() as file:
            file.write(PROGRESS.pack(-1, 0.0))
            file.flush()
            worker: _Worker | None = None
            while chunk := self._next():
                name, start, stop = chunk
                while start < stop:
                    worker = worker or _Worker(Path(file.name), self.module)
                    start = self._run_chunk(worker, name, start, stop)
                    if start < stop:
                        worker.close()
                        worker = None
            if worker:
                worker.close()

    def _run_chunk(self, worker: _Worker, name: str, start: int, stop: int) -> int:
        """Runs inputs until the end or the death of the worker; returns the next number."""
        worker.ask(name, self.seed, start, stop)
        tally = self.tallies[name]
        while True:
            answer = worker.answer(0.5)
            number, began = worker.progress()
            if answer is None and worker.has_ended():
                failed = max(number, start)
                code = worker.process.returncode
                reason = f"the process died ({_signal(code)})"
                self._lost(tally, start, failed)
                self.fail(name, failed, reason, worker.errors())
                return failed + 1
            if answer is None:
                if number >= 0 and time.monotonic() - began > self.seconds:
                    worker.process.send_signal(signal.SIGABRT)  # faulthandler shows the place
                    time.sleep(0.5)
                    self._lost(tally, start, number)
                    self.fail(name, number, f"hung for {self.seconds:g} s", worker.errors())
                    return number + 1
                continue
            if "failure" in answer:
                self.fail(name, answer["failure"], answer["reason"], answer["text"])
                continue
            with self.lock:
                tally.inputs += answer["done"]
                tally.accepted += answer["accepted"]
                tally.seconds += answer["seconds"]
                tally.memory = max(tally.memory, answer["rss"])
                if answer["slowest"] > tally.slowest:
                    tally.slowest, tally.slow_number = answer["slowest"], answer["slow"]
            return stop

    def _lost(self, tally: Tally, start: int, failed: int) -> None:
        """Counts inputs before a failure; which of them were accepted is not known."""
        with self.lock:
            tally.inputs += failed + 1 - start


class _Worker:
    def __init__(self, progress: Path, module: str) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115
        self.process = subprocess.Popen(
            [sys.executable, "-m", "tests.fuzz.worker", str(progress), module],
            stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=self._stderr, text=True,
            start_new_session=True,
        )  # fmt: skip
        with progress.open("r+b") as file:
            self._shared = mmap.mmap(file.fileno(), PROGRESS.size)
        PROGRESS.pack_into(self._shared, 0, -1, 0.0)
        self._answers: queue.Queue[dict[str, Any]] = queue.Queue()
        threading.Thread(target=self._listen, daemon=True).start()

    def _listen(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._answers.put(json.loads(line))

    def ask(self, *values: object) -> None:
        assert self.process.stdin
        self.process.stdin.write(" ".join(map(str, values)) + "\n")
        self.process.stdin.flush()

    def answer(self, seconds: float) -> dict[str, Any] | None:
        try:
            return self._answers.get(timeout=seconds)
        except queue.Empty:
            return None

    def has_ended(self) -> bool:
        return self.process.poll() is not None and self._answers.empty()

    def progress(self) -> tuple[int, float]:
        number, began = PROGRESS.unpack_from(self._shared, 0)
        return int(number), float(began)

    def errors(self) -> str:
        size = self._stderr.seek(0, os.SEEK_END)
        self._stderr.seek(max(0, size - 3000))
        return self._stderr.read().decode("utf-8", "replace")

    def close(self) -> None:
        assert self.process.stdin
        self.process.stdin.close()
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self.process.wait(10)
        finally:
            # Also the children that a worker left.
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)
            self.process.wait()
            if self.process.stdout:
                self.process.stdout.close()
            self._stderr.close()
            self._shared.close()


def _signal(code: int) -> str:
    try:
        return signal.Signals(-code).name
    except ValueError:
        return f"exit code {code}"


def table(tallies: dict[str, Tally], command: str) -> str:
    """The tallies as a Markdown table."""
    rows = [
        (name, f"{t.inputs:,}", f"{t.accepted:,}", f"{t.refused:,}",
         f"{sum(map(len, t.failures.values())):,}", f"{t.seconds:.0f}", f"{1000 * t.slowest:.0f}")
        for name, t in tallies.items()
    ]  # fmt: skip
    every = list(tallies.values())
    failures = sum(len(numbers) for t in every for numbers in t.failures.values())
    rows.append(
        ("all", f"{sum(t.inputs for t in every):,}", f"{sum(t.accepted for t in every):,}",
         f"{sum(t.refused for t in every):,}", f"{failures:,}",
         f"{sum(t.seconds for t in every):.0f}",
         f"{1000 * max(t.slowest for t in every):.0f}")
    )  # fmt: skip
    header = ("target", "inputs", "accepted", "refused", "failures", "seconds", "slowest (ms)")
    lines = [f"`{command}`", "", "| " + " | ".join(header) + " |", "|---" + "|---:" * 6 + "|"]
    lines += ["| " + " | ".join(row) + " |" for row in rows]
    return "\n".join(lines) + "\n"


def run_one(name: str, seed: int, number: int, keep: Path | None) -> None:
    """Runs one input in this process, so that a traceback or a crash is seen."""
    from tests.fuzz.targets import check, generate
    from tests.fuzz.worker import limit, private_folder

    with private_folder() as folder:
        data = generate(name, seed, number)
        if keep:
            keep.write_bytes(data)
        limit()
        is_accepted = check(name, data, folder)
    print("accepted" if is_accepted else "refused")


def main() -> None:
    from tests.fuzz.targets import TARGETS

    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--inputs", type=int, default=20_000, help="in all")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=int, default=2, help="worker processes")
    parser.add_argument("--target", action="append", choices=TARGETS, help="only this one")
    parser.add_argument("--seconds", type=float, default=60.0, help="an input hangs after these")
    parser.add_argument("--input", type=int, help="run only the input of this number")
    parser.add_argument("--keep", type=Path, help="with --input: write its bytes to this file")
    parser.add_argument("--report", type=Path, help="write the table to this file")
    options = parser.parse_args()
    names = options.target or list(TARGETS)
    if options.input is not None:
        run_one(names[0], options.seed, options.input, options.keep)
        return
    print(f"seed {options.seed}: {options.inputs:,} inputs for {len(names)} targets", flush=True)
    runner = Runner(names, options.inputs, options.seed, options.seconds)
    began = time.monotonic()
    runner.run(options.jobs)
    command = f"python -m tests.fuzz.run --inputs {options.inputs} --seed {options.seed}"
    text = table(runner.tallies, command)
    print(text)
    print(f"{time.monotonic() - began:.0f} seconds with {options.jobs} workers")
    if options.report:
        options.report.write_text(text, encoding="utf-8")
    for name, tally in runner.tallies.items():
        for reason, numbers in tally.failures.items():
            print(f"{name}: {len(numbers):,} × {reason}: {runner.command(name, numbers[0])}")
    sys.exit(any(tally.failures for tally in runner.tallies.values()))


if __name__ == "__main__":
    main()
