"""Power cuts and failing calls by seed: ``python -m tests.simulation.run --seeds 1000``.

Two rules are checked after each disturbance. Every file is an old or a new version, never between.
What is resumed or run again ends equal to the undisturbed command; and what a command has reported
as done survives a power cut.
"""

from __future__ import annotations

import argparse
import contextlib
import shutil
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from random import Random

from mmkgc_cli.state import files
from tests.kill.contents import Violation, contents_of, is_temporary
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
            _check_versions(disk, happened)
            if outcome and not outcome.code:
                break
        disk.faults = {}
        if not self._is_complete(job):
            outcome = _run(job.next_arguments(), disk)
            if outcome is None or outcome.code:
                raise Violation(f"{happened}: cannot go on: {outcome and outcome.output}")
        self._check_end(job, happened)
        # The command has reported success.
        disk.lose_power()
        _check_versions(disk, [*happened, "cut after the end"])
        self._check_end(job, [*happened, "cut after the end"])
        return happened

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


def _check_versions(disk: SimulatedDisk, happened: list[str]) -> None:
    for path in sorted(disk.root.rglob("*")):
        if path.is_dir() or is_temporary(path) or path.name in _APPENDED:
            continue
        if path.suffix in (".part", ".lock"):
            continue
        if digest(path.read_bytes()) not in disk.versions[str(path)]:
            raise Violation(f"{happened}: {path.name} is neither an old nor a new version")


@contextlib.contextmanager
def work_folder() -> Iterator[Path]:
    """A folder in memory where the system has one."""
    memory = Path("/dev/shm")
    with tempfile.TemporaryDirectory(dir=memory if memory.is_dir() else None) as folder:
        yield Path(folder)


def main() -> int:
    """Simulates seeds and prints a tally; the exit code is 1 after a violation."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--seeds", type=int, default=1000, help="number of seeds")
    parser.add_argument("--start", type=int, default=0, help="first seed")
    parser.add_argument("--seed", type=int, help="one seed only")
    parser.add_argument("--command", help="one job only")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a violation")
    options = parser.parse_args()
    import torch

    torch.set_num_threads(1)
    seeds = range(options.start, options.start + options.seeds)
    if options.seed is not None:
        seeds = range(options.seed, options.seed + 1)
    tally: Counter[str] = Counter()
    failures = 0
    start = time.monotonic()
    with work_folder() as work:
        simulation = Simulation(work, [options.command] if options.command else None)
        print(f"operations: {simulation.operations}", flush=True)
        for seed in seeds:
            try:
                happened = simulation.simulate(seed)
            except Violation as error:
                failures += 1
                command = f" --command {options.command}" if options.command else ""
                print(f"seed {seed}: {error}\n  repeat: python -m tests.simulation.run "
                      f"--seed {seed}{command}", flush=True)  # fmt: skip
                if not options.keep_going:
                    return 1
                continue
            tally[happened[0]] += 1
            if options.seed is not None:
                print("\n".join(happened))
    seconds = time.monotonic() - start
    print(
        f"{len(seeds)} seeds, {failures} violations, {seconds:.0f} s; {dict(sorted(tally.items()))}"
    )
    return 1 if failures else 0


if __name__ == "__main__":
    assert isinstance(files.disk, files.Disk)
    sys.exit(main())
