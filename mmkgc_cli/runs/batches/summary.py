"""Results of a batch: means over seeds, gains over a strategy, CSV, unmet expectations."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from mmkgc_cli.errors import UsageError, nearest

if TYPE_CHECKING:
    from mmkgc_cli.runs.batches.plan import Job
    from mmkgc_cli.runs.batches.recipe import Recipe

# Metrics that are shown in percent.
SHARES = ("mrr", "hits@1", "hits@3", "hits@10", "amri")
METRICS = ("mrr", "mr", "hits@1", "hits@3", "hits@10", "amri")


def shown(name: str, value: float) -> float:
    """A metric as shown: shares in percent."""
    return 100 * value if name in SHARES else value


@dataclass(frozen=True)
class Group:
    """Jobs that differ only in their seeds: means and sample standard deviations."""

    graph: str
    scorer: str
    rate: float
    strategy: str  # of completion; empty without completion
    varied: tuple[tuple[str, Any], ...]
    seeds: int
    mean: Mapping[str, float]
    deviation: Mapping[str, float]  # empty for one seed


def groups(rows: Sequence[Mapping[str, Any]]) -> list[Group]:
    """Groups the jobs that have results, in the order of their first jobs."""
    members: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["metrics"]:
            varied = tuple(sorted((k, str(v)) for k, v in row["varied"].items()))
            key = (row["graph"], row["scorer"], row["rate"], row.get("strategy", ""), varied)
            members.setdefault(key, []).append(row)
    result = []
    for (graph, scorer, rate, strategy, varied), jobs in members.items():
        values = {m: [row["metrics"][m] for row in jobs if m in row["metrics"]] for m in METRICS}
        mean = {m: statistics.fmean(v) for m, v in values.items() if v}
        deviation = {m: statistics.stdev(v) for m, v in values.items() if len(v) > 1}
        result.append(Group(graph, scorer, rate, strategy, varied, len(jobs), mean, deviation))
    return result


@dataclass(frozen=True)
class Gain:
    """Gain of one completion strategy over another: MRR differences of equal seeds."""

    graph: str
    scorer: str
    rate: float
    strategy: str
    varied: tuple[tuple[str, Any], ...]
    seeds: int
    mean: float
    error: float | None  # standard error of the mean; None for one seed

    @property
    def verdict(self) -> str:
        """``gain``, ``loss``, or ``none`` for a difference below two standard errors."""
        if self.error is None:
            return "one seed says nothing"
        if abs(self.mean) < 2 * self.error:
            return "none"
        return "gain" if self.mean > 0 else "loss" if self.mean < 0 else "none"


def gains(rows: Sequence[Mapping[str, Any]], against: str) -> list[Gain]:
    """Compares each strategy with `against`, for jobs that are equal otherwise.

    Raises:
        UsageError: when no job with results has the strategy `against`.
    """
    mrr: dict[tuple[Any, ...], dict[str, dict[int, float]]] = {}
    for row in rows:
        if row["metrics"]:
            varied = tuple(sorted((k, str(v)) for k, v in row["varied"].items()))
            by_strategy = mrr.setdefault((row["graph"], row["scorer"], row["rate"], varied), {})
            by_seed = by_strategy.setdefault(row.get("strategy", ""), {})
            by_seed[row["seed"]] = row["metrics"]["mrr"]
    known = {strategy for by_strategy in mrr.values() for strategy in by_strategy if strategy}
    if against not in known:
        raise UsageError(
            f"--against {against}: no results of that strategy", fix=nearest(against, known)
        )
    result = []
    for (graph, scorer, rate, varied), by_strategy in mrr.items():
        base = by_strategy.get(against, {})
        for strategy, by_seed in by_strategy.items():
            differences = [value - base[seed] for seed, value in by_seed.items() if seed in base]
            if strategy != against and differences:
                n = len(differences)
                error = statistics.stdev(differences) / n**0.5 if n > 1 else None
                mean = statistics.fmean(differences)
                result.append(Gain(graph, scorer, rate, strategy, varied, n, mean, error))
    return result


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """CSV with a line for each job and a column for each setting and metric (as fractions)."""
    varied = sorted({key for row in rows for key in row["varied"]})
    axes = ["graph", "scorer", "seed", "rate"]
    axes += ["strategy"] * any("strategy" in row for row in rows)
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(
        ["job", "state", *axes, *varied, "epochs", *METRICS, "seconds", "run", "message"]
    )
    for row in rows:
        writer.writerow(
            [row["job"], row["state"], *(row.get(axis, "") for axis in axes),
             *(row["varied"].get(key, "") for key in varied), row["epochs"],
             *(row["metrics"].get(metric, "") for metric in METRICS), row["seconds"], row["run"],
             row["message"]]
        )  # fmt: skip
    return text.getvalue()


def unexpected(recipe: Recipe, jobs: Sequence[Job], rows: Sequence[Mapping[str, Any]]) -> list[str]:
    """One line for each expectation that is not met; a job without results meets none."""
    by_name = {row["job"]: row for row in rows}
    problems = []
    for chosen in recipe.expect:
        expected: Any = chosen.selector
        metric = expected.metric
        for job in filter(lambda job: job.agrees(chosen), jobs):
            value = by_name.get(job.name, {}).get("metrics", {}).get(metric)
            interval = f"{metric} {expected.value:g} within {expected.tolerance:g}"
            if value is None:
                problems.append(f"{chosen.line}: expected {interval}, {job.name} has no result")
            elif abs(shown(metric, value) - expected.value) > expected.tolerance:
                got = f"{shown(metric, value):.2f}"
                problems.append(f"{chosen.line}: expected {interval}, {job.name} has {got}")
    return problems
