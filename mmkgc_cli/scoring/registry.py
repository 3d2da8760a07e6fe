"""Where scorers are found (`mmkgc_cli.plugins`) and what a file must define to be one."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmkgc_cli.plugins import Complaint, PluginKind, load, load_file
from mmkgc_cli.plugins.checks import described, shown, takes

if TYPE_CHECKING:
    from mmkgc_cli.scoring.contract import Scorer

PACKAGE = "mmkgc_scorers"


def _base() -> type[Scorer]:
    from mmkgc_cli.scoring.contract import Scorer  # torch: not for who only lists names

    return Scorer


def _check(scorer: type[Scorer]) -> Complaint | None:
    """What keeps a class from being a scorer, the first thing found."""
    base = _base()
    from mmkgc_cli.ops import Metric
    from mmkgc_cli.scoring.contract import ScorerConfig

    own = {name for name in CALLS if getattr(scorer, name) is not getattr(base, name)}
    missing = sorted({"query", "candidates"} - own)
    score_only = "score" in own and len(missing) == 2
    if missing and not score_only:
        wanted = f"a method {missing[0]}(self, {', '.join(CALLS[missing[0]])})"
        instead = " (or score(self, triples) without query and candidates)"
        return Complaint(missing[0], f"expected {wanted}{instead}, got none")
    for name in sorted(own | {"__init__"}):
        if complaint := takes(scorer, name, CALLS.get(name, ARGUMENTS)):
            return complaint
    metric: Any = getattr(scorer, "metric", None)
    branches = metric if isinstance(metric, tuple) and metric else (metric,)
    if not score_only and not all(isinstance(of_branch, Metric) for of_branch in branches):
        known = ", ".join(f"Metric.{known.name}" for known in Metric)
        return Complaint("metric", f"expected one of {known}, got {shown(metric)}")
    return described(scorer, ScorerConfig)


# What the core calls a scorer with.
ARGUMENTS = ("config", "n_entities", "n_relations", "generator")
CALLS = {
    "query": ("entities", "relations", "side"),
    "candidates": ("entities",),
    "score": ("triples",),
}


SCORERS: PluginKind[Scorer] = PluginKind(
    noun="scorer",
    package=PACKAGE,
    group="mmkgc.scorers",
    folder="scorers",
    variable="MMKGC_SCORERS",
    attribute="SCORER",
    base=_base,
    check=_check,
)


def load_scorer(name: str) -> type[Scorer]:
    """The scorer class of the plugin `name`; only its file is imported.

    Raises:
        UsageError: when there is none of that name; lists the nearest.
        DataError: when it is broken: file and line, member, expected and got.
    """
    return load(SCORERS, name)


def load_scorer_file(file: Path) -> type[Scorer]:
    """The scorer class of one file, wherever that is.

    Raises:
        DataError: as `load_scorer`.
    """
    return load_file(SCORERS, file)
