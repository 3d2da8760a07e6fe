"""Where scorers are found (`mmkgc_cli.plugins`) and what a scorer class must define."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from mmkgc_cli.plugins import Complaint, PluginRegistry
from mmkgc_cli.plugins.checks import shown

if TYPE_CHECKING:
    from mmkgc_cli.scoring.contract import Scorer

CALLS = {
    "__init__": ("config", "n_entities", "n_relations", "generator"),
    "query": ("entities", "relations", "side"),
    "candidates": ("entities",),
    "score": ("triples",),
}


def _check(scorer: type[Scorer], base: type[Scorer]) -> Complaint | None:
    """Checks that there are rows and a metric, or scores of triples."""
    from mmkgc_cli.ops import Metric

    defined = {name for name in CALLS if getattr(scorer, name) is not getattr(base, name)}
    missing = sorted({"query", "candidates"} - defined)
    score_only = "score" in defined and len(missing) == 2
    if missing and not score_only:
        method = f"{missing[0]}(self, {', '.join(CALLS[missing[0]])})"
        return Complaint(
            missing[0],
            f"expected a method {method} (or score(self, triples) without query and candidates), "
            "got none",
            f"define {method}",
        )
    metric: Any = getattr(scorer, "metric", None)
    branches = metric if isinstance(metric, tuple) and metric else (metric,)
    if not score_only and not all(isinstance(branch, Metric) for branch in branches):
        names = ", ".join(f"Metric.{member.name}" for member in Metric)
        return Complaint(
            "metric", f"expected one of {names}, got {shown(metric)}", "set metric = Metric.l1"
        )
    return None


SCORERS: PluginRegistry[Scorer] = PluginRegistry(
    noun="scorer",
    package="mmkgc_scorers",
    group="mmkgc.scorers",
    folder="scorers",
    variable="MMKGC_SCORERS",
    attribute="SCORER",
    base="mmkgc_cli.scoring.contract:Scorer",
    calls=CALLS,
    check=_check,
)
load_scorer = SCORERS.load
load_scorer_file = SCORERS.load_file
