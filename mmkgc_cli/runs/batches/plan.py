"""From a recipe to its jobs: names, folders and configurations, checked before anything runs."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.runs.batches.recipe import Chosen, Recipe, Selector, Settings, combinations, line_of
from mmkgc_cli.runs.config import resolve
from mmkgc_cli.runs.sections import FeaturesConfig, RunConfig
from mmkgc_cli.runs.toml_file import Keys, TomlFile, read_toml
from mmkgc_cli.scoring import load_scorer

# Characters of a name that are left of its settings; the rest is told by the digest.
LONGEST = 100
# The place of a graph in the path of a store.
GRAPH = "{graph}"


@dataclass(frozen=True)
class Masked:
    """A store with vectors taken away, which all jobs that want it share."""

    source: str
    modality: str
    rate: float
    pattern: str
    seed: int
    graph: str  # whose train triples a pattern counts; empty where it counts none

    @property
    def name(self) -> str:
        """Of the file."""
        digest = _digest([self.source, self.graph])
        return f"{self.modality}-{self.pattern}-{self.rate:g}-seed{self.seed}-{digest}.h5"


@dataclass(frozen=True)
class Job:
    """A training and its evaluation."""

    name: str
    graph: str
    scorer: str
    seed: int
    rate: float
    varied: Mapping[str, Any]  # the settings that tell it from others, by SECTION.KEY
    values: Settings
    masked: tuple[Masked, ...]
    config: RunConfig

    def agrees(self, chosen: Chosen) -> bool:
        """Whether a selector of the recipe means this job."""
        about = chosen.about
        own = {"graph": self.graph, "scorer": self.scorer, "seed": self.seed, "rate": self.rate}
        wanted = about.model_dump(include=set(own), exclude_none=True)
        return all(own[key] == value for key, value in wanted.items()) and all(
            self.values.get(section, {}).get(key) == value
            for section, entries in chosen.settings.items()
            for key, value in entries.items()
        )


def plan(recipe: Recipe) -> list[Job]:
    """All jobs, in the order of the recipe.

    Raises:
        DataError: with every mistake, a line each, however many jobs it is in.
    """
    planner = _Planner(recipe)
    jobs: dict[str, Job] = {}
    for job in planner.jobs():
        jobs.setdefault(job.name, job)
    if not planner.problems:
        for kind, of_kind in (("exclude", recipe.exclude), ("expect", recipe.expect)):
            for chosen in of_kind:
                if not any(job.agrees(chosen) for job in jobs.values()):
                    planner.problem(f"{chosen.line}: [[{kind}]] means no job of this batch")
    if planner.problems:
        raise DataError("\n".join(sorted(planner.problems, key=line_of)))
    left = [job for job in jobs.values() if not any(map(job.agrees, recipe.exclude))]
    if not left:
        raise DataError(f"{recipe.file.name}: every job is excluded")
    return left


class _Planner:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.problems: list[str] = []
        self._bases: dict[str, TomlFile | None] = {}

    def problem(self, message: str) -> None:
        """Remembers one; most are in many jobs."""
        if message not in self.problems:
            self.problems.append(message)

    def jobs(self) -> Iterator[Job]:
        batch = self.recipe.batch
        for i, graph in enumerate(batch.graphs):
            if not (Path(graph) / "graph.h5").is_file():
                self.problem(
                    f"{self.recipe.file.at('batch', 'graphs')}: graphs[{i}]: no prepared graph in "
                    f"{graph!r}; make it with `mmkgc prepare`"
                )
        everything = Selector()
        for choice in combinations(self.recipe.grid):
            grid = {key: (value, ("grid", *key)) for key, value in choice.items()}
            yield from self._chosen(everything, grid)
        for i, included in enumerate(self.recipe.include):
            own = {
                (section, key): (value, ("include", i, section, key))
                for section, entries in included.settings.items()
                for key, value in entries.items()
            }
            yield from self._chosen(included.about, own)

    def _chosen(
        self, about: Selector, varied: Mapping[tuple[str, str], tuple[Any, Keys]]
    ) -> Iterator[Job]:
        batch = self.recipe.batch
        for graph in batch.graphs if about.graph is None else [about.graph]:
            for scorer in batch.scorers if about.scorer is None else [about.scorer]:
                for rate in self.recipe.rates if about.rate is None else [about.rate]:
                    for seed in batch.seeds if about.seed is None else [about.seed]:
                        if job := self._job(graph, scorer, rate, seed, varied):
                            yield job

    def _job(
        self,
        graph: str,
        scorer: str,
        rate: float,
        seed: int,
        varied: Mapping[tuple[str, str], tuple[Any, Keys]],
    ) -> Job | None:
        recipe, file = self.recipe, self.recipe.file
        base = self._base(scorer)
        values: Settings = {}
        lines: dict[Keys, int] = {}

        def put(section: str, key: str, value: Any, keys: Keys) -> None:
            values.setdefault(section, {})[key] = value
            at = file.at(*keys).rpartition(":")[2]
            if at.isdecimal():
                lines[section, key] = lines[section,] = int(at)

        if base:
            for section, entries in base.values.items():
                if section in ("model", "training", "sampler", "features"):
                    values[section] = dict(entries)
        for key, value in recipe.features.items():
            put("features", key, value, ("features", key))
        layers: list[tuple[Keys, Settings]] = [
            (("settings",), recipe.settings),
            (("scorer", scorer), recipe.of_scorer.get(scorer, {})),
        ]
        for keys, settings in layers:
            for section, entries in settings.items():
                for key, value in entries.items():
                    put(section, key, value, (*keys, section, key))
        for (section, key), (value, keys) in varied.items():
            put(section, key, value, keys)
        put("training", "seed", seed, ("batch", "seeds"))
        try:
            scorer_class = load_scorer(scorer)
        except MmkgcError as error:
            self.problem(f"{file.at('batch', 'scorers')}: {error}")
            return None
        modalities = scorer_class.modalities
        for key in [k for k in values.get("features", {}) if k not in FeaturesConfig.model_fields]:
            # A recipe has scorers that take other modalities, or none.
            if key not in modalities:
                del values["features"][key]
            elif isinstance(values["features"][key], str):
                values["features"][key] = values["features"][key].replace(GRAPH, graph)
        if not modalities:
            values.pop("features", None)
        masked = self._masked(values, graph, rate)
        try:
            config = resolve(scorer, scorer_class.Config, values, file.name, {}, [], lines=lines)
        except DataError as error:
            for line in str(error).splitlines():
                self.problem(line)
            return None
        shown = {f"{s}.{k}": value for (s, k), (value, _) in varied.items()}
        digest = _digest([graph, scorer, rate if masked else 0, values])
        words = [Path(graph).resolve().name, scorer]
        words += [f"{name.rpartition('.')[2]}={value}" for name, value in shown.items()]
        words += [f"rate={rate:g}"] * bool(recipe.mask) + [f"seed={seed}"]
        name = re.sub(r"[^\w.=+-]+", "_", "-".join(words))[:LONGEST] + f"-{digest}"
        return Job(name, graph, scorer, seed, rate, shown, values, masked, config)

    def _base(self, scorer: str) -> TomlFile | None:
        """The configuration that a scorer of the recipe begins with; checked on its own."""
        if scorer not in self._bases:
            name = self.recipe.configs.get(scorer)
            self._bases[scorer] = None
            if name is not None:
                try:
                    base = read_toml(Path(name))
                    known = {k: v for k, v in base.values.items() if k != "features"}
                    resolve(
                        scorer, load_scorer(scorer).Config, known, base.name, {}, [],
                        lines=base.lines,
                    )  # fmt: skip
                    self._bases[scorer] = base
                except MmkgcError as error:
                    for line in str(error).splitlines():
                        self.problem(line)
        return self._bases[scorer]

    def _masked(self, values: Settings, graph: str, rate: float) -> tuple[Masked, ...]:
        mask, features = self.recipe.mask, values.get("features", {})
        if not mask or not rate:
            return ()
        found = []
        for modality in mask.modalities or [
            m for m in features if m not in FeaturesConfig.model_fields
        ]:
            if isinstance(store := features.get(modality), str):
                counts = graph if mask.pattern != "random" else ""
                found.append(Masked(store, modality, rate, mask.pattern, mask.seed, counts))
        return tuple(found)


def _digest(value: Any) -> str:
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
