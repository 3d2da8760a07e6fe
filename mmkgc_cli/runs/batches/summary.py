"""Results of a batch: a row a job, means over seeds, and what the recipe expected."""

from __future__ import annotations

import csv
import io
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from mmkgc_cli.errors import UsageError, nearest
from mmkgc_cli.runs.batches.plan import Job
from mmkgc_cli.runs.batches.recipe import Expected, Recipe

# Shares, which are shown in percent.
SHARES = ("mrr", "hits@1", "hits@3", "hits@10", "amri")
METRICS = ("mrr", "mr", "hits@1", "hits@3", "hits@10", "amri")


def shown(name: str, value: float) -> float:
    """A metric as it is shown: shares in percent."""
    return 100 * value if name in SHARES else value


@dataclass(frozen=True)
class Group:
    """Jobs that differ in their seeds alone: means, and standard deviations of the sample."""

    graph: str
    scorer: str
    rate: float
    strategy: str  # of completion; empty where there is none
    varied: tuple[tuple[str, Any], ...]
    seeds: int
    mean: Mapping[str, float]
    deviation: Mapping[str, float]  # empty for one seed


def groups(rows: Sequence[Mapping[str, Any]]) -> list[Group]:
    """The jobs with results, put together; in the order in which they first come."""
    found: dict[tuple[Any, ...], list[Mapping[str, Any]]] = {}
    for row in rows:
        if row["metrics"]:
            varied = tuple(sorted((k, str(v)) for k, v in row["varied"].items()))
            key = (row["graph"], row["scorer"], row["rate"], row.get("strategy", ""), varied)
            found.setdefault(key, []).append(row)
    made = []
    for (graph, scorer, rate, strategy, varied), of_key in found.items():
        values = {m: [row["metrics"][m] for row in of_key if m in row["metrics"]] for m in METRICS}
        mean = {m: statistics.fmean(v) for m, v in values.items() if v}
        spread = {m: statistics.stdev(v) for m, v in values.items() if len(v) > 1}
        made.append(Group(graph, scorer, rate, strategy, varied, len(of_key), mean, spread))
    return made


@dataclass(frozen=True)
class Gain:
    """What a strategy of completion has over another, in MRR: differences of the same seeds."""

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
        """A difference below two standard errors is none."""
        if self.error is None:
            return "one seed says nothing"
        if abs(self.mean) < 2 * self.error:
            return "none"
        return "gain" if self.mean > 0 else "loss" if self.mean < 0 else "none"


def gains(rows: Sequence[Mapping[str, Any]], against: str) -> list[Gain]:
    """Each strategy against one of them, for all else alike; in the order in which they first come.

    Raises:
        UsageError: when no job with a result has that strategy.
    """
    found: dict[tuple[Any, ...], dict[str, dict[int, float]]] = {}
    for row in rows:
        if row["metrics"]:
            varied = tuple(sorted((k, str(v)) for k, v in row["varied"].items()))
            of_key = found.setdefault((row["graph"], row["scorer"], row["rate"], varied), {})
            of_strategy = of_key.setdefault(row.get("strategy", ""), {})
            of_strategy[row["seed"]] = row["metrics"]["mrr"]
    known = {strategy for of_key in found.values() for strategy in of_key if strategy}
    if against not in known:
        raise UsageError(f"--against {against}: no results of it; {nearest(against, known)}")
    made = []
    for (graph, scorer, rate, varied), of_key in found.items():
        base = of_key.get(against, {})
        for strategy, of_strategy in of_key.items():
            pairs = [mrr - base[seed] for seed, mrr in of_strategy.items() if seed in base]
            if strategy != against and pairs:
                n = len(pairs)
                error = statistics.stdev(pairs) / n**0.5 if n > 1 else None
                mean = statistics.fmean(pairs)
                made.append(Gain(graph, scorer, rate, strategy, varied, n, mean, error))
    return made


def as_csv(rows: Sequence[Mapping[str, Any]]) -> str:
    """A line a job; settings and metrics have columns of their own, metrics as fractions."""
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
    """Which expectations do not hold, a line each; those about jobs without results are not met."""
    by_name = {row["job"]: row for row in rows}
    said = []
    for chosen in recipe.expect:
        about = chosen.about
        assert isinstance(about, Expected)
        for job in filter(lambda job: job.agrees(chosen), jobs):
            value = by_name.get(job.name, {}).get("metrics", {}).get(about.metric)
            wanted = f"{about.metric} {about.value:g} within {about.tolerance:g}"
            if value is None:
                said.append(f"{chosen.line}: expected {wanted}, {job.name} has no result")
            elif abs(shown(about.metric, value) - about.value) > about.tolerance:
                got = f"{shown(about.metric, value):.2f}"
                said.append(f"{chosen.line}: expected {wanted}, {job.name} has {got}")
    return said
