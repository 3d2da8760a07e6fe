"""Power cuts and failing calls by seed: ``python -m tests.simulation.run --seeds 1000``.

Two rules are checked after each disturbance. Every file is an old or a new version, never between.
What is resumed or run again ends equal to the undisturbed command; and what a command has reported
as done survives a power cut.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import json
import multiprocessing
import shutil
import sys
import tempfile
import time
from collections import Counter, defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from random import Random
from typing import Any

from tests.kill.contents import Violation, contents_of, is_removable, is_temporary, leftovers
from tests.simulation.disk import FAULTS, PowerCut, SimulatedDisk, digest
from tests.simulation.jobs import Job, Outcome, all_jobs, run, simulated

# Files that are appended to under their final names; their readers expect torn ends.
_APPENDED = ("trace.jsonl", "log.txt", ".lock")
# Faults in a row, at most.
MOST = 3


class Simulation:
    """The jobs, and what they write when nothing disturbs them."""

    def __init__(self, work: Path, names: list[str] | None = None) -> None:
        self.root = work / "disk"
        jobs = all_jobs(work)
        self.jobs = {name: jobs[name] for name in names or jobs}
        self.expected: dict[str, dict[str, str]] = {}
        self.operations: dict[str, int] = {}
        self.tally: Counter[str] = Counter()  # faults of the last seed
        for job in self.jobs.values():
            self._clear()
            disk = SimulatedDisk(self.root, Random(0))
            with simulated(disk):
                outcome = run(job.arguments)
            if outcome.code:
                raise Violation(f"{job.name}: undisturbed: {outcome.output}")
            self.expected[job.name] = contents_of(job.folder)
            self.operations[job.name] = disk.count

    def _clear(self) -> None:
        shutil.rmtree(self.root, ignore_errors=True)
        self.root.mkdir()

    def simulate(self, seed: int, kind: type[SimulatedDisk] = SimulatedDisk) -> list[str]:
        """Runs the job of a seed with its faults; returns what happened.

        Raises:
            Violation: when a rule is broken.
        """
        random = Random(seed)
        job = random.choice(list(self.jobs.values()))
        self._clear()
        disk = kind(self.root, random)
        self.tally = disk.tally
        happened = [job.name]
        for _ in range(random.randint(1, MOST)):
            number = disk.count + random.randint(1, self.operations[job.name] + 1)
            disk.faults = {number: random.choice(FAULTS)}
            arguments = job.next_arguments()
            outcome = _run(arguments, disk)
            happened.append(f"{' '.join(arguments[:3])}: {_describe(disk, outcome)}")
            disk.happened.clear()
            if outcome is None:
                disk.lose_power()
            elif "Traceback" in outcome.output or "internal error" in outcome.output:
                raise Violation(f"{happened}: {outcome.output}")
            _check_files(disk, happened)
            if outcome and not outcome.code:
                break
        disk.faults = {}
        self._finish(job, disk, happened)
        if found := leftovers(self.root):
            raise Violation(f"{happened}: temporary files stay: {[path.name for path in found]}")
        # The command has reported success.
        disk.lose_power()
        _check_files(disk, [*happened, "cut after the end"])
        self._check_end(job, [*happened, "cut after the end"])
        return happened

    def _finish(self, job: Job, disk: SimulatedDisk, happened: list[str]) -> None:
        """Types the command a last time; a complete one may refuse, if it changes nothing."""
        was_complete = self._is_complete(job)
        arguments = job.arguments if was_complete else job.next_arguments()
        outcome = _run(arguments, disk)
        assert outcome is not None
        is_refusal = "exists" in outcome.output or "already" in outcome.output
        if outcome.code and not (was_complete and is_refusal):
            raise Violation(f"{happened}: cannot go on: {outcome.output}")
        happened.append(f"at the end: exit {outcome.code}")
        _check_files(disk, happened)
        self._check_end(job, happened)

    def _is_complete(self, job: Job) -> bool:
        """Whether the job has ended, so that the same command would find its results."""
        try:
            return contents_of(job.folder) == self.expected[job.name]
        except Exception:  # unreadable: the command has to make it again
            return False

    def _check_end(self, job: Job, happened: list[str]) -> None:
        expected = self.expected[job.name]
        try:
            found = contents_of(job.folder)
        except Exception as error:
            raise Violation(f"{happened}: unreadable: {error}") from error
        if different := sorted(
            name for name in found.keys() | expected.keys() if found.get(name) != expected.get(name)
        ):
            raise Violation(f"{happened}: differ from the undisturbed: {different}")


def _run(arguments: list[str], disk: SimulatedDisk) -> Outcome | None:
    """None when the power failed."""
    try:
        with simulated(disk):
            outcome = run(arguments)
            return None if disk.is_off else outcome
    except PowerCut:
        return None


def _describe(disk: SimulatedDisk, outcome: Outcome | None) -> str:
    what = ", ".join(disk.happened) or "no fault"
    return what if outcome is None else f"{what}, exit {outcome.code}"


def _check_files(disk: SimulatedDisk, happened: list[str]) -> None:
    for path in sorted(disk.durable):
        if not (path.exists() or _may_go(path, disk.removed.get(path))):
            raise Violation(f"{happened}: {path.name} has vanished")
    for path in sorted(disk.root.rglob("*")):
        if path.is_dir() or is_temporary(path) or path.name in _APPENDED:
            continue
        if path.suffix in (".part", ".lock"):
            continue
        if digest(path.read_bytes()) not in disk.versions[str(path)]:
            raise Violation(f"{happened}: {path.name} is neither an old nor a new version")


def _may_go(path: Path, removed: bytes | None) -> bool:
    """Whether a command may remove a file; `removed` is what it contained then."""
    if path.name == "ending.json":  # removed when a failed job is run again
        return removed is not None and json.loads(removed)["state"] == "failed"
    return is_temporary(path) or is_removable(str(path))


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A folder in memory where the system has one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


@dataclass(frozen=True)
class Task:
    """Seeds of one process; it appends a line of JSON to `output` before and after each."""

    seeds: Sequence[int]
    output: Path
    command: str | None
    keep_going: bool


def _simulate(task: Task) -> None:
    """Runs in a process of its own, since a seed may crash it."""
    import torch

    faulthandler.enable()
    torch.set_num_threads(1)
    with task.output.open("a") as output, work_folder() as work:
        simulation = Simulation(work, [task.command] if task.command else None)
        for seed in task.seeds:
            print(json.dumps({"seed": seed}), file=output, flush=True)
            line: dict[str, Any] = {"seed": seed}
            try:
                line["happened"] = simulation.simulate(seed)
            except Violation as error:
                line["violation"] = str(error)
            line["faults"] = simulation.tally
            print(json.dumps(line), file=output, flush=True)
            if "violation" in line and not task.keep_going:
                return


class Results:
    """What the seeds gave."""

    def __init__(self) -> None:
        self.seeds: Counter[str] = Counter()  # by command
        self.faults: dict[str, Counter[str]] = defaultdict(Counter)  # by command
        self.violations: dict[int, str] = {}

    def add(self, line: dict[str, Any]) -> None:
        """Adds a line that a process wrote after a seed."""
        if "violation" in line:
            self.violations[line["seed"]] = line["violation"]
        else:
            command = line["happened"][0]
            self.seeds[command] += 1
            self.faults[command].update(line["faults"])

    def table(self) -> str:
        """The seeds and faults by command, in Markdown."""
        rows = [["command", "seeds", *FAULTS]]
        for command in sorted(self.seeds):
            faults = self.faults[command]
            rows.append([command, str(self.seeds[command]), *(str(faults[f]) for f in FAULTS)])
        total = sum(self.faults.values(), Counter[str]())
        rows.append(["all", str(self.seeds.total()), *(str(total[fault]) for fault in FAULTS)])
        rows.insert(1, ["---", *["---:"] * (len(FAULTS) + 1)])
        return "".join(f"| {' | '.join(row)} |\n" for row in rows)


def simulate(seeds: range, jobs: int, command: str | None, keep_going: bool) -> Results:
    """Simulates seeds in `jobs` processes; a crash of a process is a violation of its seed."""
    results = Results()
    with work_folder() as work:
        remaining = [list(seeds[index::jobs]) for index in range(jobs)]
        outputs = [work / f"{index}.jsonl" for index in range(jobs)]
        context = multiprocessing.get_context("spawn")
        processes: dict[int, Any] = {}

        def start(index: int) -> None:
            task = Task(remaining[index], outputs[index], command, keep_going)
            processes[index] = context.Process(target=_simulate, args=(task,))
            processes[index].start()

        for index in range(jobs):
            if remaining[index]:
                outputs[index].touch()
                start(index)
        read = [0] * jobs
        while processes:
            time.sleep(0.2)
            for index in list(processes):
                process = processes[index]
                has_ended = process.exitcode is not None
                with outputs[index].open() as file:
                    file.seek(read[index])
                    lines = file.read()
                lines = lines[: lines.rfind("\n") + 1]
                read[index] += len(lines.encode())
                for line in map(json.loads, lines.splitlines()):
                    if len(line) > 1:
                        remaining[index].remove(line["seed"])
                        results.add(line)
                        _print_progress(results, line, command)
                if not has_ended:
                    continue
                del processes[index]
                if process.exitcode:
                    ending = f"the process ended with code {process.exitcode}"
                    line = {"seed": remaining[index].pop(0), "violation": ending}
                    results.add(line)
                    _print_progress(results, line, command)
                    if remaining[index] and keep_going:
                        start(index)
    return results


def _print_progress(results: Results, line: dict[str, Any], command: str | None) -> None:
    if "violation" in line:
        option = f" --command {command}" if command else ""
        print(f"seed {line['seed']}: {line['violation']}\n  repeat: python -m "
              f"tests.simulation.run --seed {line['seed']}{option}", flush=True)  # fmt: skip
    elif not results.seeds.total() % 500:
        print(f"{results.seeds.total()} seeds", flush=True)


def main() -> int:
    """Simulates seeds and prints a tally; the exit code is 1 after a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, help="one seed only; prints what happened")
    parser.add_argument("--jobs", type=int, default=1, help="number of processes")
    parser.add_argument("--command", help="one job only")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a violation")
    parser.add_argument("--report", type=Path, help="write the table to this file, in Markdown")
    options = parser.parse_args()
    if options.seed is not None:
        with work_folder() as work:
            commands = [options.command] if options.command else None
            print("\n".join(Simulation(work, commands).simulate(options.seed)))
        return 0
    start = time.monotonic()
    seeds = range(options.start, options.start + options.seeds)
    results = simulate(seeds, options.jobs, options.command, options.keep_going)
    text = (
        f"Seeds {seeds.start} to {seeds.stop - 1}: {len(results.violations)} violations, "
        f"{time.monotonic() - start:.0f} s.\n\n{results.table()}"
    )
    print(text, end="")
    if options.report:
        options.report.write_text(text, encoding="utf-8")
    return 1 if results.violations else 0


if __name__ == "__main__":
    sys.exit(main())
