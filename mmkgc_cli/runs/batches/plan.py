"""Plans the jobs of a recipe: names and configurations, checked before anything runs."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from pydantic import ValidationError

from mmkgc_cli.completion.maco.settings import MacoSettings
from mmkgc_cli.errors import DataError, MmkgcError, nearest
from mmkgc_cli.plugins import Plugin, declaration, find, require, trust
from mmkgc_cli.runs.batches.recipe import (
    STRATEGIES,
    TRAINED,
    Chosen,
    Recipe,
    Selector,
    Settings,
    combinations,
    line_of,
)
from mmkgc_cli.runs.batches.stores import Completed, Masked, digest_of
from mmkgc_cli.runs.config import SECTIONS, Entry, resolve, without_deselected
from mmkgc_cli.runs.plugins import plugins_of
from mmkgc_cli.runs.sections import FeaturesConfig, RunConfig
from mmkgc_cli.runs.toml_file import Keys, TomlFile, read_toml
from mmkgc_cli.sampling.registry import SAMPLERS
from mmkgc_cli.scoring.registry import SCORERS

# Maximum number of characters from settings in a name; a digest distinguishes longer ones.
LONGEST = 100
# Stands for the graph in the path of a store.
GRAPH = "{graph}"
# The strategy that completes nothing.
NONE = "none"
STRATEGY_NAMES = tuple(dict.fromkeys((NONE, "auto", *STRATEGIES, *TRAINED)))


@dataclass(frozen=True)
class Job:
    """A training and its evaluation."""

    name: str
    graph: str
    scorer: str
    seed: int
    rate: float
    varied: Mapping[str, Any]  # settings of the grid, by SECTION.KEY
    values: Settings
    stores: tuple[Masked | Completed, ...]  # made before training
    config: RunConfig
    strategy: str | None = None  # of completion; None without [complete]

    @property
    def axes(self) -> dict[str, Any]:
        """The axes of the job, without settings."""
        axes = {"graph": self.graph, "scorer": self.scorer, "seed": self.seed, "rate": self.rate}
        return axes if self.strategy is None else {**axes, "strategy": self.strategy}

    def agrees(self, chosen: Chosen) -> bool:
        """Whether a selector of the recipe selects this job."""
        axes = self.axes
        wanted = chosen.selector.model_dump(include=set(Selector.model_fields), exclude_none=True)
        return all(axes.get(key) == value for key, value in wanted.items()) and all(
            self.values.get(section, {}).get(key) == value
            for section, entries in chosen.settings.items()
            for key, value in entries.items()
        )


def plan(recipe: Recipe) -> list[Job]:
    """All jobs, in the order of the recipe.

    Child processes may then run the plugins of the jobs (`trust.allow_in_children`).

    Raises:
        DataError: with one line for each mistake, even if it is in several jobs, or for each
            plugin file that is not trusted.
    """
    _require_trust(_scorers_of(recipe))
    planner = _Planner(recipe)
    jobs: dict[str, Job] = {}
    for job in planner.jobs():
        jobs.setdefault(job.name, job)
    planner.check_modalities()
    if not planner.problems:
        for table, entries in (("exclude", recipe.exclude), ("expect", recipe.expect)):
            for chosen in entries:
                if not any(job.agrees(chosen) for job in jobs.values()):
                    planner.problem(
                        f"{chosen.line}: [[{table}]] matches no job of this batch; "
                        "correct or remove it"
                    )
    if planner.problems:
        planner.problems.sort(key=line_of)
        raise DataError.joined(planner.problems)
    left = [job for job in jobs.values() if not any(map(job.agrees, recipe.exclude))]
    if not left:
        raise DataError(
            f"{recipe.file.name}: every job is excluded", fix="remove or narrow an [[exclude]]"
        )
    plugins = list(dict.fromkeys(pair for job in left for pair in plugins_of(job.config)))
    _require_trust(plugins)
    trust.allow_in_children(plugin for _, plugin in plugins)
    return left


def _scorers_of(recipe: Recipe) -> list[tuple[str, Plugin]]:
    """The scorers that a recipe names and that exist, with their noun."""
    named = [*recipe.batch.scorers, *(entry.selector.scorer for entry in recipe.include)]
    found = (find(SCORERS, name) for name in dict.fromkeys(filter(None, named)))
    return [(SCORERS.noun, plugin) for plugin in found if plugin is not None]


def _require_trust(plugins: Iterable[tuple[str, Plugin]]) -> None:
    """Asks before the first job starts, not within a job."""
    if lines := trust.untrusted(plugins):
        raise DataError.joined(lines)


class _Planner:
    def __init__(self, recipe: Recipe) -> None:
        self.recipe = recipe
        self.problems: list[str] = []
        self._bases: dict[str, TomlFile | None] = {}
        self._modalities: set[str] = set()  # with a store in at least one job

    def problem(self, message: str) -> None:
        """Records a problem once; most are in many jobs."""
        if message not in self.problems:
            self.problems.append(message)

    def jobs(self) -> Iterator[Job]:
        batch = self.recipe.batch
        for i, graph in enumerate(batch.graphs):
            if not (Path(graph) / "graph.h5").is_file():
                self.problem(
                    f"{self.recipe.file.location('batch', 'graphs')}: graphs[{i}]: no prepared "
                    f"graph in {graph!r}; make it with `mmkgc prepare`"
                )
        self._check_completion()
        everything = Selector()
        for choice in combinations(self.recipe.grid):
            grid = {key: (value, ("grid", *key)) for key, value in choice.items()}
            yield from self._chosen(everything, grid)
        for i, included in enumerate(self.recipe.include):
            varied = {
                (section, key): (value, ("include", i, section, key))
                for section, entries in included.settings.items()
                for key, value in entries.items()
            }
            yield from self._chosen(included.selector, varied)

    def _chosen(
        self, selector: Selector, varied: Mapping[tuple[str, str], tuple[Any, Keys]]
    ) -> Iterator[Job]:
        batch = self.recipe.batch
        strategies: Sequence[str | None] = [selector.strategy]
        if selector.strategy is None and self.recipe.complete:
            strategies = self.recipe.complete.strategies
        for graph, scorer, rate, strategy, seed in itertools.product(
            batch.graphs if selector.graph is None else [selector.graph],
            batch.scorers if selector.scorer is None else [selector.scorer],
            self.recipe.rates if selector.rate is None else [selector.rate],
            strategies,
            batch.seeds if selector.seed is None else [selector.seed],
        ):
            if job := self._job(graph, scorer, rate, strategy, seed, varied):
                yield job

    def _job(
        self,
        graph: str,
        scorer: str,
        rate: float,
        strategy: str | None,
        seed: int,
        varied: Mapping[tuple[str, str], tuple[Any, Keys]],
    ) -> Job | None:
        recipe, file = self.recipe, self.recipe.file
        base = self._base(scorer)
        layers: list[list[tuple[str, str, Any, Keys]]] = [
            [
                (section, key, value, ())
                for section, entries in (base.values.items() if base else ())
                if section in SECTIONS
                for key, value in entries.items()
            ],
            [("features", key, value, ("features", key)) for key, value in recipe.features.items()],
            *(
                [
                    (section, key, value, (*keys, section, key))
                    for section, entries in settings.items()
                    for key, value in entries.items()
                ]
                for keys, settings in (
                    (("settings",), recipe.settings),
                    (("scorer", scorer), recipe.of_scorer.get(scorer, {})),
                )
            ),
            [(section, key, value, keys) for (section, key), (value, keys) in varied.items()],
            [("training", "seed", seed, ("batch", "seeds"))],
        ]
        values: Settings = {}
        lines: dict[Keys, int] = {}
        for entry in without_deselected(
            [
                Entry(section, key, value, file.location(*keys).rpartition(":")[2], layer)
                for layer, settings_of_layer in enumerate(layers)
                for section, key, value, keys in settings_of_layer
            ]
        ):
            values.setdefault(entry.section, {})[entry.key] = entry.value
            if entry.layer and entry.source.isdecimal():
                lines[entry.section, entry.key] = lines[entry.section,] = int(entry.source)
        try:
            settings_class = SCORERS.settings(scorer)
        except MmkgcError as error:
            self.problem(f"{file.location('batch', 'scorers')}: {error}")
            return None
        modalities = _modalities_of(scorer, values.get("model", {}))
        for key in [k for k in values.get("features", {}) if k not in FeaturesConfig.model_fields]:
            # A recipe has scorers that take other modalities, or none.
            if key not in modalities:
                del values["features"][key]
            elif isinstance(values["features"][key], str):
                values["features"][key] = values["features"][key].replace(GRAPH, graph)
        if not modalities:
            values.pop("features", None)
        masked = self._masked(values, graph, rate)
        completed = self._completed(values, graph, strategy, seed, masked)
        if strategy is not None and not completed:
            strategy = NONE  # a scorer without vectors has one job, whatever is made of them
        try:
            config = resolve(
                scorer,
                settings_class,
                file=TomlFile(values, file.name, lines),
                settings_of_sampler=SAMPLERS.settings,
            )
        except DataError as error:
            for line in str(error).splitlines():
                self.problem(line)
            return None
        shown = {f"{s}.{k}": value for (s, k), (value, _) in varied.items()}
        made: dict[str, Masked | Completed] = {store.modality: store for store in masked}
        made.update({store.modality: store for store in completed})
        digest = digest_of(
            [graph, scorer, rate if masked else 0, values, *(store.identity for store in completed)]
        )
        words = [Path(graph).resolve().name, scorer]
        words += [f"{name.rpartition('.')[2]}={value}" for name, value in shown.items()]
        words += [f"rate={rate:g}"] * bool(recipe.mask)
        words += [f"strategy={strategy}"] * bool(strategy) + [f"seed={seed}"]
        name = re.sub(r"[^\w.=+-]+", "_", "-".join(words))[:LONGEST] + f"-{digest}"
        return Job(
            name, graph, scorer, seed, rate, shown, values, tuple(made.values()), config, strategy
        )

    def _base(self, scorer: str) -> TomlFile | None:
        """The configuration file of a scorer, checked on its own."""
        if scorer not in self._bases:
            name = self.recipe.configs.get(scorer)
            self._bases[scorer] = None
            if name is not None:
                try:
                    base = read_toml(Path(name))
                    known = {k: v for k, v in base.values.items() if k != "features"}
                    resolve(
                        scorer,
                        SCORERS.settings(scorer),
                        file=TomlFile(known, base.name, base.lines),
                        settings_of_sampler=SAMPLERS.settings,
                    )
                    self._bases[scorer] = base
                except MmkgcError as error:
                    for line in str(error).splitlines():
                        self.problem(line)
        return self._bases[scorer]

    def _masked(self, values: Settings, graph: str, rate: float) -> tuple[Masked, ...]:
        mask, features = self.recipe.mask, values.get("features", {})
        if not mask:
            return ()
        used = [m for m in features if m not in FeaturesConfig.model_fields]
        self._modalities.update(used)
        found = []
        for modality in (mask.modalities or used) if rate else ():
            if isinstance(store := features.get(modality), str):
                counts = graph if mask.pattern != "random" else ""
                found.append(Masked(store, modality, rate, mask.pattern, mask.seed, counts))
        return tuple(found)

    def _completed(
        self,
        values: Settings,
        graph: str,
        strategy: str | None,
        seed: int,
        masked: tuple[Masked, ...],
    ) -> tuple[Completed, ...]:
        complete, features = self.recipe.complete, values.get("features", {})
        if not complete or strategy is None:
            return ()
        used = {m: s for m, s in features.items() if m not in FeaturesConfig.model_fields}
        self._modalities.update(used)
        if strategy == NONE:
            return ()
        masks = {store.modality: store for store in masked}
        return tuple(
            Completed(
                store, modality, graph, strategy, complete.variant,
                seed if complete.seed is None else complete.seed,
                self.recipe.of_strategy.get(strategy, {}), strategy in TRAINED, masks.get(modality),
                features.get("allow_other_train") is True,
            )
            for modality, store in used.items()
            if isinstance(store, str) and modality in (complete.modalities or used)
        )  # fmt: skip

    def check_modalities(self) -> None:
        """Checks that at least one job has a store of each masked or completed modality."""
        known = self._modalities
        for table, of in (("mask", self.recipe.mask), ("complete", self.recipe.complete)):
            for name in of.modalities if of else ():
                if known and name not in known:
                    self.problem(
                        f"{self.recipe.file.location(table, 'modalities')}: no job has a store of "
                        f"{name!r}; {nearest(name, known)}"
                    )

    def _check_completion(self) -> None:
        """Checks names and settings of strategies."""
        recipe, file = self.recipe, self.recipe.file
        for table, entries in (
            ("include", recipe.include), ("exclude", recipe.exclude), ("expect", recipe.expect),
        ):  # fmt: skip
            for chosen in entries:
                if (name := chosen.selector.strategy) is None:
                    continue
                if not recipe.complete:
                    self.problem(
                        f"{chosen.line}: [[{table}]] names a strategy, and there is no [complete]; "
                        "add [complete]"
                    )
                elif name not in STRATEGY_NAMES:
                    self.problem(
                        f"{chosen.line}: no strategy {name!r}; {nearest(name, STRATEGY_NAMES)}"
                    )
        if not recipe.complete:
            return
        for name in recipe.complete.strategies:
            if name not in STRATEGY_NAMES:
                self.problem(
                    f"{file.location('complete', 'strategies')}: no strategy {name!r}; "
                    f"{nearest(name, STRATEGY_NAMES)}"
                )
        known = {field.name for field in fields(MacoSettings)} - {"seed"} | {"preset"}
        for strategy, settings in recipe.of_strategy.items():
            for key in settings:
                if key not in known:
                    self.problem(
                        f"{file.location('complete', strategy, key)}: no key "
                        f"complete.{strategy}.{key}; "
                        + ("it is complete.seed" if key == "seed" else nearest(key, known))
                    )


def _modalities_of(scorer: str, model: Mapping[str, Any]) -> Sequence[str]:
    """The modalities that a scorer takes with these settings; all of its modalities if the settings
    are invalid, which `resolve` reports.
    """
    declared = declaration(require(SCORERS, scorer), SCORERS)
    modalities = declared.values.get("modalities")
    if isinstance(modalities, tuple) and not declared.defines("modalities_of"):
        return modalities
    scorer_class = SCORERS.load(scorer)
    try:
        return scorer_class.modalities_of(scorer_class.Config(**model))
    except ValidationError:
        return scorer_class.modalities
