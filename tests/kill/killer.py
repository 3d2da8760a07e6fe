"""Kills a command many times, and compares its files with those of an undisturbed command."""

from __future__ import annotations

import contextlib
import random
import re
import shutil
import subprocess
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from mmkgc_cli.state.atomic import read_json
from tests.kill.contents import (
    GROWING,
    Violation,
    contents_of,
    digest,
    epochs,
    files,
    is_removable,
    leftovers,
    progress,
    read_everything,
    run_folders,
    unsaved_epochs,
)
from tests.kill.jobs import Job
from tests.kill.launching import SIGNALS, Disturbance, Launcher, Outcome

# A signal at a random time rarely meets a write, so some wait for the next one.
SHARE_AT_WRITE = 1 / 3
# Some commands end before their signal, so that signals come at the very end too.
LATEST = 1.05
# The others are forked from a process that has imported torch.
SHARE_OF_NEW_INTERPRETERS = 0.15
SECONDS_OF_IMPORTS = 2.0
SHARE_OF_FULL_DISKS = 0.1
WEIGHTS = {"SIGKILL": 8, "SIGTERM": 4, "SIGINT": 4, "SIGINT twice": 2, "SIGHUP": 2}
LONGEST_PAUSE = 0.05
FULL_DISK = "full disk"
SPACE = 1 << 28  # bytes of a disk with space
PAGE = 4096
# Exit codes after a signal; 0 if the command had finished.
CODES = {"SIGKILL": -9, "SIGTERM": 143, "SIGINT": 130, "SIGINT twice": 130, "SIGHUP": 129}
BATCH_FAILED = (1, 4)


@dataclass
class Tally:
    """Counts of one job."""

    name: str
    seconds: float = 0.0  # of an undisturbed command
    kills: Counter[tuple[str, str]] = field(default_factory=Counter)  # by signal and place
    attempts: list[int] = field(default_factory=list)  # until the work was finished, each time
    unsaved: list[int] = field(default_factory=list)  # epochs lost by each kill of a training
    leftovers: int = 0  # temporary files after kills
    before_handlers: int = 0  # signals that Python received before mmkgc could handle them
    violation: str = ""

    def __str__(self) -> str:
        lines = [f"{self.name}: {self.kills.total()} kills; undisturbed {self.seconds:.1f} s"]
        lines += [f"  {n:4} {name} {place}" for (name, place), n in self.kills.most_common()]
        attempts = " ".join(map(str, self.attempts)) or "never finished"
        lines.append(f"  attempts until it was finished, each time with equal files: {attempts}")
        if self.leftovers:
            lines.append(f"  temporary files after kills: {self.leftovers}, all removed at the end")
        if self.unsaved:
            lines.append(
                f"  epochs lost by a kill: {sum(self.unsaved) / len(self.unsaved):.1f} on average, "
                f"{max(self.unsaved)} at most, never more than an interval"
            )
        if self.before_handlers:
            lines.append(f"  signals while Python itself started: {self.before_handlers}")
        return "\n".join(lines)


def kill_repeatedly(
    job: Job, kills: int, rng: random.Random, tally: Tally, launcher: Launcher, *, mounts: bool
) -> None:
    """Kills `job` `kills` times, continues it after each kill, and finishes it at the end.

    Args:
        job: its folder may contain files before; finished work stays there.
        kills: number of kills; kills that came too late do not count.
        rng: decides the signals and times.
        tally: is filled in.
        launcher: starts the commands.
        mounts: whether a small file system may be mounted; else, the sizes of files are limited.

    Raises:
        Violation: names the first property that does not hold.
    """
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch) / "before"
        _copy(job.folder, before)
        started = time.monotonic()
        launcher.run(job.arguments, job.environment)
        tally.seconds = time.monotonic() - started
        check = FolderCheck(job, before)
        size = sum(path.stat().st_size for path in job.folder.rglob("*") if path.is_file())
        while tally.kills.total() < kills:
            _copy(before, job.folder)
            check.begin()
            if rng.random() < SHARE_OF_FULL_DISKS:
                with _disk(job.folder, before) if mounts else contextlib.nullcontext(None) as disk:
                    fill = _FullDisk(job, launcher, check, tally, disk, size)
                    fill.repeat(rng, kills - tally.kills.total())
                    _finish(job, launcher, check)
                    check.check_at_end()
                    finished = Path(scratch) / "finished"
                    _copy(job.folder, finished)
                _copy(finished, job.folder)
                continue
            attempts = _signal_until_finished(job, kills, rng, tally, launcher, check)
            check.check_at_end()
            tally.attempts.append(attempts)


def _signal_until_finished(
    job: Job, kills: int, rng: random.Random, tally: Tally, launcher: Launcher, check: FolderCheck
) -> int:
    """Starts the command and sends signals until it has finished; the number of attempts."""
    attempts = 0
    while True:
        attempts += 1
        if tally.kills.total() >= kills:
            _finish(job, launcher, check)
            return attempts
        check.before_attempt()
        disturbance = _choose(job, rng, tally.seconds)
        arguments = job.next_arguments()
        started = time.monotonic()
        try:
            outcome = launcher.attempt(
                arguments, job.folder, disturbance, environment=job.environment
            )
            if not outcome.was_signalled and attempts == 1 and not disturbance.new_interpreter:
                tally.seconds = min(tally.seconds, time.monotonic() - started)
            check_outcome(disturbance, outcome, tally)
            # The steps of a killed batch go on; half of them are killed too.
            if job.is_batch and disturbance.target != "tree" and rng.random() < 0.5:
                launcher.wait_for_orphans()
            launcher.end_orphans()
            if _has_finished(outcome, check):
                return attempts
            check.check_after_kill()
            if disturbance.is_graceful and outcome.code > 0 and (left := check.new_leftovers()):
                raise Violation(f"{min(left).name} is left by a graceful stop")
        except Violation as violation:
            command = " ".join(arguments)
            raise Violation(f"{disturbance}: mmkgc {command}: {violation}") from violation
        tally.leftovers += len(check.new_leftovers())
        tally.kills[disturbance.name, check.place()] += 1
        if job.trains:
            tally.unsaved += [unsaved_epochs(run) for run in run_folders(job.folder)]


def _finish(job: Job, launcher: Launcher, check: FolderCheck) -> None:
    """Runs the command to its end, unless a kill came after the last write."""
    if not check.is_finished() or leftovers(job.folder):
        launcher.run(job.next_arguments(), job.environment)


def _choose(job: Job, rng: random.Random, seconds: float) -> Disturbance:
    name = rng.choices([*WEIGHTS], [*WEIGHTS.values()])[0]
    targets = ["process", "group"]
    if job.is_batch and name in ("SIGKILL", "SIGTERM"):
        targets += ["child"]
    if job.is_batch and name == "SIGKILL":
        targets += ["tree"]
    is_new = rng.random() < SHARE_OF_NEW_INTERPRETERS
    latest = seconds * LATEST
    if is_new:
        latest = rng.choice([SECONDS_OF_IMPORTS / 2, SECONDS_OF_IMPORTS + latest])
    return Disturbance(
        name, rng.choice(targets), rng.uniform(0, latest), rng.random() < SHARE_AT_WRITE, is_new,
        rng.uniform(0, LONGEST_PAUSE), rng.random(),
    )  # fmt: skip


def check_outcome(disturbance: Disturbance, outcome: Outcome, tally: Tally) -> None:
    """Checks exit code and output.

    Raises:
        Violation: for another exit code, more than one error or a traceback.
    """
    code, output = outcome.code, outcome.output
    report = f"exit code {code}: {output[-3000:]}"
    if "Traceback" in output or "Exception ignored" in output:
        if not disturbance.new_interpreter or "mmkgc_cli" in output.replace("-m mmkgc_cli", ""):
            raise Violation(f"a traceback: {report}")
        tally.before_handlers += 1
        return
    errors = [line for line in output.splitlines() if line.startswith("error:")]
    if _is_refused(outcome):
        return
    if outcome.was_signalled and disturbance.target == "child":
        if code not in (0, *BATCH_FAILED):
            raise Violation(f"a child was killed: {report}")
        return
    accepted = {0, CODES[disturbance.name]} if outcome.was_signalled else {0}
    if outcome.was_signalled and code == -SIGNALS[disturbance.name] != -9:
        if disturbance.new_interpreter and not output:
            tally.before_handlers += 1
            return
        if disturbance.name == "SIGINT twice" and len(errors) <= 1:  # a shell shows 130 too
            return
    if code not in accepted:
        raise Violation(f"expected an exit code of {sorted(accepted)}: {report}")
    if len(errors) > 1:
        raise Violation(f"more than one error: {report}")
    if code > 0 and not errors:
        raise Violation(f"ends without a message: {report}")


def _is_refused(outcome: Outcome) -> bool:
    reasons = ("exist", "is not trusted")
    return outcome.code in (2, 3) and any(reason in outcome.output for reason in reasons)


def _has_finished(outcome: Outcome, check: FolderCheck) -> bool:
    """Whether the work is done.

    Raises:
        Violation: when it is not, but the same command is refused.
    """
    if outcome.code == 0:
        return True
    if _is_refused(outcome):
        if not check.is_finished():
            raise Violation(f"the work is not finished, but: {outcome.output}")
        return True
    return False


class FolderCheck:
    """The properties that must hold of a folder after each kill and at the end."""

    def __init__(self, job: Job, before: Path) -> None:
        """Takes the present contents of the folder of `job` as those of finished work."""
        self.job = job
        self.folder = job.folder
        self.expected = contents_of(self.folder)
        self.epochs = self._epochs()
        self.allowed: dict[str, set[str]] = {}  # digests by file
        self.before = {name: digest(path) for name, path in files(before).items()}
        for name, path in files(self.folder).items():
            self.allowed[name] = {digest(path), self.before.get(name, digest(path))}
        self.begin()

    def _epochs(self) -> dict[str, list[dict[str, object]]]:
        return {
            path.relative_to(self.folder).as_posix(): epochs(path)
            for path in self.folder.rglob("trace.jsonl")
        }

    def _progress(self) -> dict[str, tuple[int, int]]:
        runs = run_folders(self.folder)
        return {run.relative_to(self.folder).as_posix(): progress(run) for run in runs}

    def begin(self) -> None:
        """The work starts from the beginning."""
        self.present = {name for name in self.before if not is_removable(name)}
        self.reached = self._progress()

    def before_attempt(self) -> None:
        """Records the files, to tell what the next attempt changes."""
        self.marks = _marks(self.folder)
        self.leftovers = set(leftovers(self.folder))
        self.steps = self._progress()

    def is_finished(self) -> bool:
        """Whether the contents are those of finished work."""
        return self._contents() == self.expected

    def _contents(self) -> dict[str, str] | None:
        try:
            return contents_of(self.folder)
        except Exception:  # unfinished files
            return None

    def check_after_kill(self) -> None:
        """Checks that every file is whole, and that no file is lost.

        Raises:
            Violation: names the file.
        """
        read_everything(self.folder)
        found = files(self.folder)
        if gone := self.present - found.keys():
            raise Violation(f"{min(gone)} existed before and is gone")
        self.present |= {name for name, path in found.items() if not _may_go(name, path)}
        for name, path in found.items():
            if path.name in GROWING or is_removable(name):
                continue
            if digest(path) not in self.allowed.get(name, ()):
                raise Violation(f"{name} is not what an undisturbed command writes")
        self._check_trainings()

    def _check_trainings(self) -> None:
        reached = self._progress()
        if self.job.group != "runs":
            for run, before in self.reached.items():
                for what, now, then in zip(
                    ("checkpoint", "weights"), reached.get(run, (-1, -1)), before, strict=True
                ):
                    if now < then and not (what == "weights" and self._is_improvement(run, now)):
                        raise Violation(f"{run}: {what}: went back from {then} to {now}")
        self.reached = reached
        for name, found in self._epochs().items():
            if found != self.epochs.get(name, [])[: len(found)]:
                raise Violation(f"{name} has other epochs than an undisturbed training")

    def _is_improvement(self, run: str, epoch: int) -> bool:
        """Whether a validation of `epoch` was the best so far, when weights are saved.

        A training that goes on from a checkpoint that is older than its weights saves them again.
        """
        events = self.epochs.get(f"{run}/trace.jsonl".removeprefix("./"), [])
        return any(event["epoch"] == epoch and event["improved"] for event in events)

    def check_at_end(self) -> None:
        """Checks that finished work is equal to that of an undisturbed command.

        Raises:
            Violation: names the file.
        """
        read_everything(self.folder)
        found = contents_of(self.folder)
        for name in sorted(found.keys() | self.expected.keys()):
            if name not in found:
                raise Violation(f"{name} is missing at the end")
            if name not in self.expected:
                raise Violation(f"{name} should not exist at the end")
            if found[name] != self.expected[name]:
                raise Violation(f"{name} is not the same at the end")
        if left := leftovers(self.folder):
            raise Violation(f"{left[0].name} was never removed")

    def new_leftovers(self) -> set[Path]:
        """Temporary files of the last attempt."""
        return set(leftovers(self.folder)) - self.leftovers

    def place(self) -> str:
        """The place of the last kill, in words."""
        if self.new_leftovers():
            return "in the middle of a write"
        if _marks(self.folder) == self.marks:
            return "before the first write"
        if self.is_finished():
            return "after the last write"
        now = self._progress()
        if not (now and self.job.trains):
            return "between two writes"
        if any(now[run][0] > self.steps.get(run, (-1, -1))[0] for run in now):
            return "between checkpoints"
        return "before the first checkpoint"


def _may_go(name: str, path: Path) -> bool:
    if path.name == "ending.json":  # removed when a failed job is run again
        return bool(read_json(path)["state"] == "failed")
    return is_removable(name)


class _FullDisk:
    """Runs a job while its disk has little space."""

    def __init__(
        self, job: Job, launcher: Launcher, check: FolderCheck, tally: Tally, disk: Path | None,
        size: int,
    ) -> None:  # fmt: skip
        self.job, self.launcher, self.check, self.tally = job, launcher, check, tally
        self.disk, self.size = disk, size

    def repeat(self, rng: random.Random, most: int) -> None:
        """Runs the job once or twice on a full disk, and gives the disk space at the end."""
        for _ in range(min(2, most)):
            self.check.before_attempt()
            space = int(self.size * 1.3 * rng.random() ** 2)
            limit = None
            if self.disk is None:
                limit = max(space, 1)
            else:
                used = shutil.disk_usage(self.disk).used
                _resize(self.disk, used + PAGE * (1 + space // PAGE))
            arguments = self.job.next_arguments()
            try:
                outcome = self.launcher.attempt(
                    arguments, file_bytes=limit, environment=self.job.environment
                )
                if self.disk is not None:
                    _resize(self.disk, SPACE)
                if _has_finished(outcome, self.check):
                    return
                self._check(outcome)
                self.check.check_after_kill()
                if left := self.check.new_leftovers():
                    raise Violation(f"{min(left).name} is left by a failed write")
            except Violation as violation:
                command = " ".join(arguments)
                raise Violation(
                    f"{FULL_DISK} with {space:,} bytes: mmkgc {command}: {violation}"
                ) from violation
            self.tally.kills[FULL_DISK, self.check.place()] += 1

    def _check(self, outcome: Outcome) -> None:
        report = f"exit code {outcome.code}: {outcome.output[-3000:]}"
        errors = [line for line in outcome.output.splitlines() if line.startswith("error:")]
        if "Traceback" in outcome.output:
            raise Violation(f"a traceback: {report}")
        if self.job.is_batch and outcome.code in BATCH_FAILED:
            return
        # A training refuses to start, with exit code 1, if its weights cannot fit.
        full = "(disk is full|needs .*, but only .* are free)"
        reasons = {3: full if self.disk else "larger than this file system",
                   1: "weights and checkpoints need about"}  # fmt: skip
        if outcome.code not in reasons:
            raise Violation(f"expected exit code 3: {report}")
        pattern = re.escape(str(self.job.folder)) + ".*" + reasons[outcome.code]
        if len(errors) != 1 or not re.search(pattern, errors[0]):
            raise Violation(f"expected one error with {pattern!r}: {report}")


def may_mount() -> bool:
    """Whether this process may mount a file system."""
    with tempfile.TemporaryDirectory() as folder:
        mounted = _mount(Path(folder))
        if mounted:
            _unmount(Path(folder))
        return mounted


def _mount(folder: Path) -> bool:
    command = ["mount", "-t", "tmpfs", "-o", f"size={SPACE}", "tmpfs", str(folder)]
    with contextlib.suppress(OSError):
        return subprocess.run(command, capture_output=True).returncode == 0
    return False


def _unmount(folder: Path) -> None:
    # Lazily: mapped files of this process may keep it busy for a moment.
    subprocess.run(["umount", "-l", str(folder)], check=True)


def _resize(folder: Path, size: int) -> None:
    subprocess.run(["mount", "-o", f"remount,size={size}", str(folder)], check=True)


@contextlib.contextmanager
def _disk(folder: Path, before: Path) -> Iterator[Path]:
    """A file system of its own at `folder`, with the files of `before`."""
    folder.mkdir(parents=True, exist_ok=True)
    if not _mount(folder):
        raise Violation(f"{folder}: cannot mount a file system")
    try:
        if before.exists():
            shutil.copytree(before, folder, dirs_exist_ok=True)
        yield folder
    finally:
        _unmount(folder)


def _copy(source: Path, target: Path) -> None:
    """Makes `target` equal to `source`, also if that does not exist."""
    shutil.rmtree(target, ignore_errors=True)
    if source.exists():
        shutil.copytree(source, target)


def _marks(folder: Path) -> object:
    """Changes whenever a file is written."""
    found = [(str(path), path.stat()) for path in sorted(folder.rglob("*"))]
    return [(name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in found]
