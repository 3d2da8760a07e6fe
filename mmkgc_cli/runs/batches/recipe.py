"""Reads recipes of batches from TOML; all mistakes are reported at once."""

from __future__ import annotations

import itertools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mmkgc_cli.completion.maco.settings import PRESETS
from mmkgc_cli.errors import DataError, nearest
from mmkgc_cli.runs.config import SECTIONS, require_present_form
from mmkgc_cli.runs.toml_file import TomlFile, read_toml

# Names of strategies as in `completion.strategies`, which imports torch.
STRATEGIES = (
    "random", "one", "zero", "mean", "neighbours", "propagation", "ridge", "kernel"
)  # fmt: skip
TRAINED = ("maco",)
# Values of settings by section and key, as in a configuration.
Settings = dict[str, dict[str, Any]]


class _Strict(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, strict=True, allow_inf_nan=False)


Names = Annotated[list[str], Field(min_length=1)]
Rate = Annotated[float, Field(ge=0, lt=1)]
Seed = Annotated[int, Field(ge=0, lt=2**63)]


class BatchSection(_Strict):
    """``[batch]``: the axes of every batch."""

    graphs: Names = Field(description="Folders of prepared graphs.")
    scorers: Names = Field(description="Names of scorers.")
    seeds: list[Seed] = Field([0], min_length=1, description="Random seeds (training.seed).")
    split: Literal["test", "valid"] = Field("test", description="Split to evaluate on.")


class MaskSection(_Strict):
    """``[mask]``: vectors that are removed before training; see `mmkgc features mask`."""

    rates: list[Rate] = Field(min_length=1, description="Shares of the observed entities.")
    pattern: Literal["random", "degree", "relation"] = Field(
        "random", description="Which entities are masked first."
    )
    seed: Seed = Field(0, description="Random seed of the mask.")
    modalities: list[str] = Field([], description="Modalities; default: all.")


class CompleteSection(_Strict):
    """``[complete]``: vectors that are generated before training; see `mmkgc complete`."""

    strategies: Names = Field(description="Names of strategies; none: no completion.")
    modalities: list[str] = Field([], description="Modalities; default: all.")
    variant: Literal["gen", "all-gen"] = Field("gen", description="Which vectors are generated.")
    seed: Seed | None = Field(None, description="Random seed; default: training.seed.")


class Selector(_Strict):
    """Selects the jobs that have all given values."""

    graph: str | None = None
    scorer: str | None = None
    seed: Seed | None = None
    rate: Rate | None = None
    strategy: str | None = None


class Expected(Selector):
    """``[[expect]]``: a metric, shares in percent, with its tolerance."""

    metric: str = "mrr"
    value: float
    tolerance: float = Field(ge=0)


@dataclass(frozen=True)
class Chosen:
    """A selector with settings that jobs must have."""

    selector: Selector
    settings: Settings
    line: str  # FILE:LINE


@dataclass(frozen=True)
class Recipe:
    """The contents of a recipe; lists are the axes of the grid."""

    file: TomlFile
    batch: BatchSection
    features: dict[str, Any] = field(default_factory=dict)
    mask: MaskSection | None = None
    complete: CompleteSection | None = None
    of_strategy: dict[str, dict[str, Any]] = field(default_factory=dict)  # plain values
    settings: Settings = field(default_factory=dict)
    of_scorer: dict[str, Settings] = field(default_factory=dict)
    configs: dict[str, str] = field(default_factory=dict)  # configuration files by scorer
    grid: dict[tuple[str, str], list[Any]] = field(default_factory=dict)
    include: list[Chosen] = field(default_factory=list)
    exclude: list[Chosen] = field(default_factory=list)
    expect: list[Chosen] = field(default_factory=list)

    @property
    def rates(self) -> list[float]:
        """Rates of the mask; 0 removes nothing."""
        return self.mask.rates if self.mask else [0.0]


KNOWN = (
    "batch", "features", "mask", "complete", "settings", "scorer", "grid", "include", "exclude",
    "expect",
)  # fmt: skip


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe and checks its structure; the plan checks its settings.

    Raises:
        DataError: with one line for each mistake.
    """
    return _Reader(read_toml(path)).read()


class _Reader:
    def __init__(self, file: TomlFile) -> None:
        self.file = file
        self.problems: list[str] = []

    def read(self) -> Recipe:
        values = self.file.values
        require_present_form(values, self.file.name)
        for name in values:
            if name not in KNOWN:
                self.problem((name,), f"no section {name!r}", nearest(name, KNOWN))
        batch = self.model(BatchSection, ("batch",), self.table(values, "batch"))
        mask = None
        if "mask" in values:
            mask = self.model(MaskSection, ("mask",), self.table(values, "mask"))
        complete, of_strategy = self.completion(values)
        of_scorer, configs = self.of_scorers(self.table(values, "scorer"))
        grid = {}
        for section, key, entries in self.settings(("grid",), self.table(values, "grid")):
            if isinstance(entries, list) and entries:
                grid[section, key] = entries
            else:
                self.problem(
                    ("grid", section, key),
                    f"grid.{section}.{key}: expected a list of values to try, got {entries!r}",
                    f"write {key} = [{entries!r}]",
                )
        settings = self.nested(("settings",), self.table(values, "settings"))
        features = self.table(values, "features")
        include, exclude = (self.chosen(values, n, Selector) for n in ("include", "exclude"))
        expect = self.chosen(values, "expect", Expected)
        if self.problems:
            self.problems.sort(key=line_of)
            raise DataError.joined(self.problems)
        return Recipe(
            self.file, batch, features, mask, complete, of_strategy, settings, of_scorer, configs,
            grid, include, exclude, expect,
        )  # fmt: skip

    def problem(self, keys: tuple[str | int, ...], problem: str, fix: str) -> None:
        self.problems.append(f"{self.file.location(*keys)}: {problem}; {fix}")

    def table(self, values: Mapping[str, Any], name: str) -> dict[str, Any]:
        table = values.get(name, {})
        if not isinstance(table, dict):
            self.problem((name,), f"{name!r} is not a section", f"write [{name}]")
            return {}
        return table

    def model(self, section: type[Any], keys: tuple[str | int, ...], values: dict[str, Any]) -> Any:
        try:
            return section(**values)
        except ValidationError as error:
            for issue in error.errors():
                key, name = str(issue["loc"][0]), ".".join(map(str, (keys[0], *issue["loc"])))
                if issue["type"] == "extra_forbidden":
                    fix = nearest(key, section.model_fields)
                    self.problem((*keys, key), f"no key {keys[0]}.{key}", fix)
                elif issue["type"] == "missing":
                    help_text = (section.model_fields[key].description or "").rstrip(".")
                    meaning = f": {help_text[0].lower()}{help_text[1:]}" if help_text else ""
                    self.problem(keys, f"{name} is missing{meaning}", f"add {key} = …")
                else:
                    reason = issue["msg"][0].lower() + issue["msg"][1:]
                    self.problem(
                        (*keys, key),
                        f"{name}: {reason}, got {issue['input']!r}",
                        "correct the value",
                    )
            return None

    def completion(
        self, values: Mapping[str, Any]
    ) -> tuple[CompleteSection | None, dict[str, dict[str, Any]]]:
        """``[complete]``, and the tables ``[complete.STRATEGY]`` in it."""
        if "complete" not in values:
            return None, {}
        rest = self.table(values, "complete")
        tables = {k: v for k, v in rest.items() if k in TRAINED or isinstance(v, dict)}
        settings: dict[str, dict[str, Any]] = {}
        for name, entries in tables.items():
            if name not in TRAINED:
                fix = f"remove it; strategies with settings: {', '.join(TRAINED)}"
                self.problem(("complete", name), f"{name!r} has no settings", fix)
            elif not isinstance(entries, dict):
                fix = f"write [complete.{name}]"
                self.problem(("complete", name), f"complete.{name} is a section", fix)
            else:
                settings[name] = entries
                self.check_plain(name, entries)
        section = {k: v for k, v in rest.items() if k not in tables}
        return self.model(CompleteSection, ("complete",), section), settings

    def check_plain(self, strategy: str, entries: Mapping[str, Any]) -> None:
        for key, value in entries.items():
            keys, name = ("complete", strategy, key), f"complete.{strategy}.{key}"
            if key == "preset" and value not in PRESETS:
                problem = f"{name}: expected {' or '.join(PRESETS)}, got {value!r}"
                self.problem(keys, problem, f'write preset = "{next(iter(PRESETS))}"')
            elif not isinstance(value, str | bool | int | float):
                problem = f"{name}: expected a text, a number or a bool, got {value!r}"
                self.problem(keys, problem, f"write {key} = VALUE")

    def settings(
        self, keys: tuple[str | int, ...], values: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, Any]]:
        for section, entries in values.items():
            if section not in SECTIONS:
                fix = nearest(section, SECTIONS)
                self.problem((*keys, section), f"no section {section!r} of settings", fix)
            elif not isinstance(entries, dict):
                fix = f"write {section}.KEY = {entries!r}"
                self.problem((*keys, section), f"{section!r} is a section", fix)
            else:
                yield from ((section, key, value) for key, value in entries.items())

    def nested(self, keys: tuple[str | int, ...], values: Mapping[str, Any]) -> Settings:
        settings: Settings = {}
        for section, key, value in self.settings(keys, values):
            settings.setdefault(section, {})[key] = value
        return settings

    def of_scorers(self, values: dict[str, Any]) -> tuple[dict[str, Settings], dict[str, str]]:
        settings: dict[str, Settings] = {}
        configs: dict[str, str] = {}
        for name, entries in values.items():
            if not isinstance(entries, dict):
                fix = f"write [scorer.{name}]"
                self.problem(("scorer", name), f"scorer.{name} is a section", fix)
                continue
            rest = dict(entries)
            config = rest.pop("config", None)
            if isinstance(config, str):
                configs[name] = config
            elif config is not None:
                problem = f"scorer.{name}.config: expected a file name, got {config!r}"
                self.problem(("scorer", name, "config"), problem, 'write config = "FILE.toml"')
            settings[name] = self.nested(("scorer", name), rest)
        return settings, configs

    def chosen(
        self, values: Mapping[str, Any], name: str, selector: type[Selector]
    ) -> list[Chosen]:
        entries = values.get(name, [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            problem = f"{name!r} is a list of tables"
            self.problem((name,), problem, f"write [[{name}]], once for each entry")
            return []
        chosen = []
        for i, entry in enumerate(entries):
            axes = {k: v for k, v in entry.items() if k not in SECTIONS}
            settings = {k: v for k, v in entry.items() if k in SECTIONS}
            model = self.model(selector, (name, i), axes)
            if model is not None:
                line = self.file.location(name, i)
                chosen.append(Chosen(model, self.nested((name, i), settings), line))
        return chosen


def line_of(problem: str) -> int:
    """The line number in a problem; 0 without one."""
    match = re.match(r".+?:(\d+): ", problem)
    return int(match[1]) if match else 0


def combinations(grid: Mapping[tuple[str, str], list[Any]]) -> Iterator[dict[tuple[str, str], Any]]:
    """Every combination of one value for each axis, in order."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))
