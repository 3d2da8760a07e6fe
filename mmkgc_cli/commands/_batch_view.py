"""How `mmkgc batch` shows plans, running jobs and results."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from mmkgc_cli.commands._shell import log, out, print_json, printable, say, table
from mmkgc_cli.text import counted

if TYPE_CHECKING:
    from rich.live import Live
    from rich.table import Table

    from mmkgc_cli.runs.batches.folder import BatchFolder, Ending
    from mmkgc_cli.runs.batches.plan import Job
    from mmkgc_cli.runs.batches.summary import Gain

METRICS = ("mrr", "mr", "hits@1", "hits@10")


def duration(seconds: float) -> str:
    """``12 s``, ``3 min 05 s`` or ``2 h 05 min``."""
    whole = round(seconds)
    if whole < 100:
        return f"{whole} s"
    minutes, rest = divmod(whole, 60)
    return f"{minutes} min {rest:02} s" if minutes < 100 else f"{minutes // 60} h {minutes % 60:02}"


def print_plan(
    folder: BatchFolder, jobs: Sequence[Job], seconds: Mapping[str, float], as_json: bool
) -> None:
    """Prints the jobs and, where it was measured, how long they would take."""
    listed: list[dict[str, Any]] = [
        {
            "job": job.name, **job.axes, "varied": dict(job.varied),
            "state": folder.job(job.name).state().value, "seconds": seconds.get(job.name),
        }
        for job in jobs
    ]  # fmt: skip
    if as_json:
        print_json({"folder": str(folder.path), "jobs": listed})
        return
    rows = [
        [
            printable(row["job"]),
            row["state"],
            *([duration(row["seconds"])] if seconds else []),
        ]
        for row in listed
    ]
    out.print(table("", ["job", "state", *(["at most"] if seconds else [])], rows, texts=2))
    left = [row for row in listed if row["state"] not in ("finished", "failed")]
    say(f"{counted(len(jobs), 'job')}, {len(left)} to run, into {folder.path}")
    if seconds:
        total = sum(row["seconds"] for row in left)
        say(f"about {duration(total)} in total, one after the other, without early stopping")


def print_status(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints a line for each job."""
    shown = [
        [
            printable(row["job"]),
            row["state"],
            "" if row["epochs"] is None else str(row["epochs"]),
            f"{100 * row['metrics']['mrr']:.2f}" if "mrr" in row["metrics"] else "",
            duration(row["seconds"]),
        ]
        for row in rows
    ]
    out.print(table("", ["job", "state", "epochs", "MRR %", "ran"], shown, texts=2))
    for row in rows:
        if row["message"]:
            say(f"{row['job']}: {row['message']}")
    states = [row["state"] for row in rows]
    counts = [f"{states.count(state)} {state}" for state in dict.fromkeys(states)]
    say(", ".join(counts))


def print_results(rows: Sequence[Mapping[str, Any]]) -> None:
    """Prints means over seeds."""
    from mmkgc_cli.runs.batches.summary import groups, shown

    results = groups(rows)
    if not results:
        say("no results yet")
        return
    varied = list(dict.fromkeys(key for group in results for key, _ in group.varied))
    with_rates = any(group.rate for group in results)
    with_strategies = any(group.strategy for group in results)
    lines = []
    for group in results:
        values = dict(group.varied)
        cells = []
        for metric in METRICS:
            mean = shown(metric, group.mean[metric])
            spread = group.deviation.get(metric)
            cell = f"{mean:,.1f}" if metric == "mr" else f"{mean:.2f}"
            cells.append(cell + (f" ± {shown(metric, spread):.2f}" if spread is not None else ""))
        lines.append(
            [
                printable(group.graph), printable(group.scorer),
                *(str(values.get(key, "")) for key in varied),
                *([f"{group.rate:g}"] if with_rates else []),
                *([group.strategy] if with_strategies else []), str(group.seeds), *cells,
            ]
        )  # fmt: skip
    header = ["graph", "scorer", *varied, *(["rate"] if with_rates else [])]
    header += [*(["strategy"] if with_strategies else []), "seeds"]
    names = ["MRR %", "MR", "hits@1 %", "hits@10 %"]
    out.print(table("", [*header, *names], lines, texts=2))


def print_gains(gains: Sequence[Gain], against: str) -> None:
    """Prints the gains of completion strategies over the strategy `against`."""
    varied = list(dict.fromkeys(key for gain in gains for key, _ in gain.varied))
    lines = []
    for gain in gains:
        values = dict(gain.varied)
        error = "" if gain.error is None else f" ± {100 * gain.error:.2f}"
        lines.append(
            [
                printable(gain.graph), printable(gain.scorer),
                *(str(values.get(key, "")) for key in varied), f"{gain.rate:g}", gain.strategy,
                str(gain.seeds), f"{100 * gain.mean:+.2f}{error}", gain.verdict,
            ]
        )  # fmt: skip
    header = ["graph", "scorer", *varied, "rate", "strategy", "seeds", "MRR %", "which is"]
    title = f"gain over {against} by seed: mean ± standard error; below two errors it is none"
    out.print(table(title, header, lines, texts=2))


class Display:
    """Progress: a live table on a terminal, otherwise a line for each event."""

    def __init__(self, jobs: Sequence[Job]) -> None:
        self._total = len(jobs)
        self._running: dict[str, tuple[str, float]] = {}
        self._ended = self._failed = 0
        self._waited = False
        self._drawn = 0
        self._live: Live | None = None
        if log.is_terminal:
            from rich.live import Live

            table = self._table()
            self._live = Live(table, console=log.console, transient=True, auto_refresh=False)

    def __enter__(self) -> Display:
        if self._live:
            self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        if self._live:
            self._live.stop()

    def started(self, job: Job, step: str) -> None:
        """Shows a step that was started."""
        self._running[job.name] = step, time.monotonic()
        if not self._live:
            say(f"{job.name}: {step}")

    def ended(self, job: Job, ending: Ending) -> None:
        """Counts a job that ended."""
        self._ended += 1
        self._failed += ending.state.value == "failed"
        began = self._running.pop(job.name, None)
        if began or ending.message:
            reason = f": {ending.message}" if ending.message else ""
            say(f"{job.name}: {ending.state.value} after {duration(ending.seconds)}{reason}")

    def waiting(self, jobs: Sequence[Job]) -> None:
        """Prints once that all jobs that are left run elsewhere."""
        if not self._waited:
            self._waited = True
            say(f"waiting for {counted(len(jobs), 'job')} of another process")

    def tick(self) -> None:
        """Updates the table, at most twice a second."""
        if self._live and int(2 * time.monotonic()) != self._drawn:
            self._drawn = int(2 * time.monotonic())
            self._live.update(self._table(), refresh=True)

    def _table(self) -> Table:
        now = time.monotonic()
        rows = [
            [printable(name), step, duration(now - start)]
            for name, (step, start) in self._running.items()
        ]
        failed = f", {self._failed} failed" if self._failed else ""
        return table(f"{self._ended} of {self._total} jobs{failed}", ["", "", ""], rows, texts=2)
