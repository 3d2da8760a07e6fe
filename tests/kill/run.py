"""Kills mmkgc commands at random times, continues them, and shows that nothing is lost.

    python -m tests.kill.run [--kills 100] [--seed 0]      every command that writes files
    python -m tests.kill.run --only "train rotate" --kills 20 --seed 0          one of them
    python -m tests.kill.run --kills 20 -- COMMAND ...      any one command of mmkgc

A kill is SIGKILL, SIGTERM, SIGINT, two SIGINT, SIGHUP or a full disk. After each, every file must
be readable and whole under its final name, and a training may lose no more epochs than lie between
two checkpoints. At the end, all files must equal those of an undisturbed command.

COMMAND works on a copy of the folder that it names with --out, --run or --resume, or as an
argument.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import shutil
import subprocess
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Iterable, Sequence
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.state.atomic import write_text
from tests.kill.contents import Violation
from tests.kill.jobs import SHARES, Job, all_jobs
from tests.kill.killer import Tally, kill_repeatedly, may_mount
from tests.kill.launching import Launcher

# Set in the mount namespace of the harness.
NAMESPACE = "MMKGC_KILL_NAMESPACE"


def job_of(arguments: list[str], work: Path) -> Job:
    """Any command, on a copy of its folder.

    Raises:
        SystemExit: when it names none.
    """
    at = next(
        (i + 1 for i, a in enumerate(arguments[:-1]) if a in ("--out", "--run", "--resume")),
        next((i for i, a in enumerate(arguments) if i and Path(a).is_dir()), None),
    )
    if at is None:
        raise SystemExit("name the folder of the command: --out, --run, --resume or an argument")
    given, folder = Path(arguments[at]), work / "folder"
    arguments = [*arguments[:at], str(folder), *arguments[at + 1 :]]
    if arguments[0] == "train" and "--resume" not in arguments:  # begins without files
        arguments = [a for a in arguments if a != "--overwrite"]
    elif given.is_dir():
        shutil.copytree(given, folder)
    is_resumed = arguments[0] in ("train", "complete") and "--out" not in arguments
    return Job(" ".join(arguments[:2]), arguments, folder, is_resumed)


def distribute(jobs: Sequence[Job], kills: int, rng: random.Random) -> dict[str, int]:
    """The number of kills of each job, by its name: the share of its group, then evenly."""
    counts: Counter[str] = Counter()
    groups = {group: [job.name for job in jobs if job.group == group] for group in SHARES}
    groups = {group: names for group, names in groups.items() if names}
    total = sum(SHARES[group] for group in groups)
    exact = {group: kills * SHARES[group] / total for group in groups}
    of_group = {group: int(value) for group, value in exact.items()}
    rest = sorted(groups, key=lambda group: of_group[group] - exact[group])
    for group in rest[: kills - sum(of_group.values())]:
        of_group[group] += 1
    for group, names in groups.items():
        order = rng.sample(names, len(names))
        for i in range(of_group[group]):
            counts[order[i % len(order)]] += 1
    return dict(counts)


def prepare_process(work: Path) -> None:
    """Sets the environment of all commands, and the folder that they start in."""
    os.environ["OMP_NUM_THREADS"] = "1"
    for name in ("XDG_CONFIG_HOME", "XDG_CACHE_HOME", "XDG_DATA_HOME"):
        os.environ[name] = str(work / "home")
    cwd = work / "cwd"
    cwd.mkdir(exist_ok=True)
    os.chdir(cwd)


_launcher: Launcher | None = None


def _start_launcher() -> None:
    global _launcher
    _launcher = Launcher()


def _run_job(job: Job, kills: int, seed: int, mounts: bool) -> Tally:
    """Kills one job; a violation is in the tally."""
    assert _launcher is not None
    tally = Tally(job.name)
    try:
        rng = random.Random(f"{seed} {job.name}")
        kill_repeatedly(job, kills, rng, tally, _launcher, mounts=mounts)
    except (Violation, MmkgcError) as error:
        tally.violation = str(error)
    except Exception:  # the other jobs go on
        tally.violation = traceback.format_exc()
    return tally


def table(tallies: Iterable[Tally]) -> str:
    """The counts by command and signal, and by place, as Markdown."""
    tallies = list(tallies)
    signals = sorted({name for tally in tallies for name, _ in tally.kills})
    groups: dict[str, Counter[str]] = {}
    places: Counter[str] = Counter()
    for tally in tallies:
        words = tally.name.split()
        group = " ".join(words[:2]) if words[0] in ("features", "runs", "config", "scorers",
                                                    "texts", "plugins") else words[0]  # fmt: skip
        for (name, place), count in tally.kills.items():
            groups.setdefault(group, Counter())[name] += count
            places[place] += count
    lines = [
        "| command | " + " | ".join(signals) + " | all |",
        "|---|" + "---:|" * (len(signals) + 1),
    ]
    total: Counter[str] = Counter()
    for group, counts in groups.items():
        total += counts
        cells = [f"{counts[name]:,}" for name in signals]
        lines.append(f"| `{group}` | {' | '.join(cells)} | {counts.total():,} |")
    cells = [f"{total[name]:,}" for name in signals]
    lines.append(f"| all | {' | '.join(cells)} | {total.total():,} |")
    lines += ["", "| place | kills |", "|---|---:|"]
    lines += [f"| {place} | {count:,} |" for place, count in places.most_common()]
    unsaved = [n for tally in tallies for n in tally.unsaved]
    lines.append("")
    if unsaved:
        lines.append(f"Epochs lost by a kill: {sum(unsaved) / len(unsaved):.1f} on average, "
                     f"{max(unsaved)} at most.")  # fmt: skip
    lines.append(f"Temporary files after kills: {sum(t.leftovers for t in tallies):,}, all removed "
                 "by the end.")  # fmt: skip
    lines.append(f"Signals while Python itself started, before mmkgc: "
                 f"{sum(t.before_handlers for t in tallies):,}.")  # fmt: skip
    return "\n".join(lines) + "\n"


def _enter_namespace() -> None:
    """Starts this program again where it may mount file systems, if the system permits that."""
    if os.environ.get(NAMESPACE) or sys.platform != "linux":
        return
    os.environ[NAMESPACE] = "1"
    for options in ("-m", "-rm"):
        test = ["unshare", options, "mount", "-t", "tmpfs", "tmpfs", tempfile.gettempdir()]
        if shutil.which("unshare") and subprocess.run(test, capture_output=True).returncode == 0:
            command = ["unshare", options, sys.executable, "-m", "tests.kill.run", *sys.argv[1:]]
            os.execvp("unshare", command)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=0, help="decides signals and times")
    parser.add_argument("--jobs", type=int, default=2, help="commands at a time")
    parser.add_argument("--only", help="a job, or the first words of several")
    parser.add_argument("--report", type=Path, help="write the table to this file, in Markdown")
    parser.add_argument("--keep-going", action="store_true", help="do not stop at a failure")
    parser.add_argument("command", nargs="*", help="of mmkgc, after --")
    return parser.parse_args()


def main() -> None:
    options = _options()
    _enter_namespace()
    started = time.monotonic()
    report = options.report and options.report.absolute()
    work = Path(tempfile.mkdtemp(prefix="mmkgc-kill-"))
    prepare_process(work)
    mounts = may_mount()
    disk = "tmpfs" if mounts else "limits of file sizes, since nothing may be mounted"
    print(f"seed {options.seed}; full disks: {disk}", flush=True)
    if options.command:
        jobs = [job_of(options.command, work)]
        counts = {jobs[0].name: options.kills}
    else:
        with Launcher() as launcher:
            jobs = all_jobs(work, launcher.run)
        if options.only:
            jobs = [job for job in jobs if job.name == options.only] or [
                job for job in jobs if f"{job.name} ".startswith(f"{options.only} ")
            ]
        if not jobs:
            raise SystemExit(f"--only {options.only}: there is no such job")
        counts = distribute(jobs, options.kills, random.Random(options.seed))
    tallies: list[Tally] = []
    failed: list[Tally] = []
    selected = sorted(
        (job for job in jobs if counts.get(job.name)), key=lambda job: not job.is_batch
    )
    pool = ProcessPoolExecutor(
        options.jobs, multiprocessing.get_context("forkserver"), _start_launcher
    )
    with pool:
        futures = [
            pool.submit(_run_job, job, counts[job.name], options.seed, mounts) for job in selected
        ]
        for job, future in zip(selected, futures, strict=True):
            tally = future.result()
            tallies.append(tally)
            print(tally, flush=True)
            if tally.violation:
                failed.append(tally)
                again = f"--only {tally.name!r} --kills {counts[tally.name]} --seed {options.seed}"
                print(f"FAILED {tally.name}: after {tally.kills.total()} kills: {tally.violation}")
                print(f"its files are in {job.folder}; repeat it with: "
                      f"python -m tests.kill.run {again}", flush=True)  # fmt: skip
                if not options.keep_going:
                    pool.shutdown(cancel_futures=True)
                    break
    text = table(tallies)
    print(text)
    if report:
        write_text(report, text)
    total = sum(tally.kills.total() for tally in tallies)
    minutes = (time.monotonic() - started) / 60
    if failed:
        print(f"{total} kills in {minutes:.1f} minutes; {len(failed)} jobs failed")
        sys.exit(1)
    shutil.rmtree(work)
    print(f"{total} kills in {minutes:.1f} minutes, and nothing was lost")


if __name__ == "__main__":
    main()
