"""Kills an mmkgc command again and again, and holds what it leaves against an undisturbed one."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from tests.kill.contents import (
    CHECKPOINTS,
    GROWING,
    Broken,
    digest,
    epochs,
    files,
    leftovers,
    progress,
    read_everything,
    remains,
    unsaved_epochs,
)

# A kill at a random time rarely meets a write, so some wait for the next one.
AIMED = 1 / 3
# Some lives end by themselves, so that kills come at the very end too.
LONGEST = 1.05


@dataclass
class Job:
    """A command, and the folder that it writes to."""

    arguments: list[str]
    folder: Path

    @property
    def trains(self) -> bool:
        return self.arguments[0] in ("train", "complete")

    def now(self) -> list[str]:
        """What a user would type now: the command, or --resume once there is a run."""
        begun = (self.folder / "config.toml").is_file()
        if self.trains and begun and "--resume" not in self.arguments:
            return [self.arguments[0], "--resume", str(self.folder)]
        return self.arguments


@dataclass
class Tally:
    """What became of one job."""

    name: str
    usual: float = 0.0
    places: Counter[str] = field(default_factory=Counter)
    lives: list[int] = field(default_factory=list)  # of each time the work was finished
    unsaved: list[int] = field(default_factory=list)  # epochs lost by each kill of a training
    torn: int = 0  # temporary files that kills left

    def __str__(self) -> str:
        lives = " ".join(map(str, self.lives)) or "never finished"
        lines = [
            f"{self.name}: {self.places.total()} kills; undisturbed it takes {self.usual:.1f} s",
            *(f"  {count:4} {place}" for place, count in self.places.most_common()),
            f"  lives until it was done, each time with an equal end: {lives}",
            f"  temporary files left by a kill: {self.torn}, all swept by the end",
        ]
        if self.unsaved:
            lines.append(
                f"  epochs lost by a kill: {sum(self.unsaved) / len(self.unsaved):.1f} on average, "
                f"{max(self.unsaved)} at most, never more than an interval"
            )
        return "\n".join(lines)


def run_undisturbed(arguments: Sequence[str]) -> None:
    """Runs a command to its end, in a process of its own.

    Raises:
        Broken: when it ends with an error, or something else kills it, such as want of memory.
    """
    if _live(arguments, Path(), None, False):
        raise Broken(f"mmkgc {' '.join(arguments)}: something else killed it")


def torment(
    job: Job,
    kills: int,
    rng: random.Random,
    tally: Tally,
    undisturbed: Callable[[Sequence[str]], None] = run_undisturbed,
    usual: float | None = None,
) -> None:
    """Kills `job` so many times, each time going on, and lets it finish in the end.

    Args:
        job: its folder may hold what the command begins with; finished work stays there.
        kills: that count; one that came too late does not.
        rng: decides when.
        tally: is filled in.
        undisturbed: runs a command to its end; shows what must come out.
        usual: seconds that the command takes in a process of its own, if not what it takes there.

    Raises:
        Broken: naming the first thing that does not hold.
    """
    with tempfile.TemporaryDirectory() as scratch:
        before = Path(scratch) / "before"
        _copy(job.folder, before)
        started = time.monotonic()
        undisturbed(job.arguments)
        tally.usual = usual or time.monotonic() - started
        watch = Watch(job, before)
        left = kills
        while True:
            _copy(before, job.folder)
            watch.begin()
            lives = 0
            done = False
            while not done:
                lives += 1
                command = job.now()
                if not left:
                    undisturbed(command)
                    break
                watch.before_a_life()
                seconds = rng.uniform(0, LONGEST * tally.usual)
                started = time.monotonic()
                done = not _live(command, job.folder, seconds, rng.random() < AIMED)
                if done and lives == 1:  # the machine was busier before; later kills come in time
                    tally.usual = min(tally.usual, time.monotonic() - started)
                elif not done:
                    left -= 1
                    watch.look()
                    tally.torn += len(watch.torn())
                    tally.places[watch.place()] += 1
                    if job.trains:
                        tally.unsaved.append(unsaved_epochs(job.folder))
            watch.end()
            tally.lives.append(lives)
            if not left:
                return


class Watch:
    """What must hold of a folder after each kill and in the end."""

    def __init__(self, job: Job, before: Path) -> None:
        """Takes what is in the folder of `job` now as what must come out."""
        self.job = job
        self.folder = job.folder
        self.expected = remains(self.folder)
        self.epochs = epochs(self.folder / "trace.jsonl") if job.trains else []
        self.allowed: dict[str, set[str]] = {}  # contents, by file
        self.before = {name: digest(path) for name, path in files(before).items()}
        for name, path in files(self.folder).items():
            self.allowed[name] = {digest(path), self.before.get(name, digest(path))}
        self.begin()

    def begin(self) -> None:
        """The work is begun anew."""
        self.present = {name for name in self.before if not self._may_go(name)}
        self.reached = progress(self.folder)

    def before_a_life(self) -> None:
        """Remembers what is there, to tell what that life did."""
        self.marks = _marks(self.folder)
        self.leftovers = set(leftovers(self.folder))
        self.step = progress(self.folder)[0]

    def look(self) -> None:
        """After a kill: every file is whole, and nothing that was there is gone."""
        read_everything(self.folder)
        found = files(self.folder)
        if gone := self.present - found.keys():
            raise Broken(f"{min(gone)} was there before and is gone")
        self.present |= {name for name in found if not self._may_go(name)}
        for name, path in found.items():
            if self.job.trains and (name in GROWING or self._may_go(name)):
                continue
            if digest(path) not in self.allowed.get(name, ()):
                raise Broken(f"{name} is not what an undisturbed command writes")
        if self.job.trains:
            self._look_at_training()

    def _look_at_training(self) -> None:
        reached = progress(self.folder)
        for what, now, then in zip(("checkpoint", "weights"), reached, self.reached, strict=True):
            if now < then:
                raise Broken(f"{what}: went back from {then} to {now}")
        self.reached = reached
        trace = self.folder / "trace.jsonl"
        found = epochs(trace) if trace.is_file() else []
        if found != self.epochs[: len(found)]:
            raise Broken("trace.jsonl tells of other epochs than those of an undisturbed training")

    def end(self) -> None:
        """The work is done: all is as it would have been."""
        read_everything(self.folder)
        found = remains(self.folder)
        for name in sorted(found.keys() | self.expected.keys()):
            if name not in found:
                raise Broken(f"{name} is missing in the end")
            if name not in self.expected:
                raise Broken(f"{name} should not be there in the end")
            if found[name] != self.expected[name]:
                raise Broken(f"{name} is not the same in the end")
        if left := leftovers(self.folder):
            raise Broken(f"{left[0].name} was never swept")

    def torn(self) -> set[Path]:
        """Temporary files of the life that was killed last."""
        return set(leftovers(self.folder)) - self.leftovers

    def place(self) -> str:
        """Where a kill hit, in words."""
        if self.torn():
            return "in the middle of a write"
        if _marks(self.folder) == self.marks:
            return "before the first file of that life"
        if remains(self.folder) == self.expected:
            return "after the last file"
        if not self.job.trains:
            return "between two files"
        if progress(self.folder)[0] > self.step:
            return "between checkpoints"
        return "before the first checkpoint of that life"

    @staticmethod
    def _may_go(name: str) -> bool:
        return name.startswith(f"{CHECKPOINTS}/")


def _live(arguments: Sequence[str], folder: Path, seconds: float | None, aimed: bool) -> bool:
    """Runs a command, and kills it and its children after so long; whether that was in time.

    Args:
        arguments: of mmkgc.
        folder: that it writes to.
        seconds: until the kill; None lets it live.
        aimed: wait on, until it is writing a file.

    Raises:
        Broken: when it ends by itself with an error.
    """
    with tempfile.TemporaryFile() as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "mmkgc_cli", *arguments],
            stdin=subprocess.DEVNULL, stdout=output, stderr=output, start_new_session=True,
        )  # fmt: skip
        try:
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(seconds)
            while aimed and process.poll() is None and not _writes(folder, process.pid):
                time.sleep(0.0002)
        finally:
            if process.returncode is None:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()
        output.seek(0)
        if process.returncode not in (0, -signal.SIGKILL):
            said = output.read().decode(errors="replace").strip()
            raise Broken(f"mmkgc {' '.join(arguments)}: exit code {process.returncode}: {said}")
        return process.returncode != 0


def _writes(folder: Path, pid: int) -> bool:
    with contextlib.suppress(OSError):  # what it renames is gone while we look
        return any(path.name.endswith(f"-{pid}.tmp") for path in folder.rglob(".*.tmp"))
    return False


def _copy(source: Path, target: Path) -> None:
    """Makes `target` what `source` is, also when that is nothing."""
    shutil.rmtree(target, ignore_errors=True)
    if source.exists():
        shutil.copytree(source, target)


def _marks(folder: Path) -> object:
    """Changes whenever a file is written."""
    found = [(str(path), path.stat()) for path in sorted(folder.rglob("*"))]
    return [(name, s.st_mtime_ns, s.st_size, s.st_ino) for name, s in found]
