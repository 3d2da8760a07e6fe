"""Recipes of batches: a TOML file that says which jobs there are; all mistakes shown at once."""

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
from mmkgc_cli.runs.config import SECTIONS
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
    """``[batch]``: the axes that every batch has."""

    graphs: Names = Field(description="folders of prepared graphs")
    scorers: Names = Field(description="names of scorers")
    seeds: list[Seed] = Field([0], min_length=1, description="training.seed")
    split: Literal["test", "valid"] = Field("test", description="ranked when a job is trained")


class MaskSection(_Strict):
    """``[mask]``: vectors taken away before training; see `mmkgc features mask`."""

    rates: list[Rate] = Field(min_length=1, description="shares of the observed entities")
    pattern: Literal["random", "degree", "relation"] = Field("random", description="who goes first")
    seed: Seed = Field(0, description="decides which")
    modalities: list[str] = Field([], description="which; all when left out")


class CompleteSection(_Strict):
    """``[complete]``: vectors made for entities without one; see `mmkgc complete`."""

    strategies: Names = Field(description="names of strategies; none completes nothing")
    modalities: list[str] = Field([], description="which; all when left out")
    variant: Literal["gen", "all-gen"] = Field("gen", description="whose vectors are made")
    seed: Seed | None = Field(None, description="of what is made; training.seed when left out")


class Selector(_Strict):
    """Which jobs are meant: those that agree with all that is given."""

    graph: str | None = None
    scorer: str | None = None
    seed: Seed | None = None
    rate: Rate | None = None
    strategy: str | None = None


class Expected(Selector):
    """``[[expect]]``: a result, shares in percent, and how far off it may be."""

    metric: str = "mrr"
    value: float
    tolerance: float = Field(ge=0)


@dataclass(frozen=True)
class Chosen:
    """A selector with the settings that it names."""

    about: Selector
    settings: Settings
    line: str  # FILE:LINE


@dataclass(frozen=True)
class Recipe:
    """What a recipe says; lists are the axes of the grid."""

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
        """Of the mask; 0 takes nothing away."""
        return self.mask.rates if self.mask else [0.0]


KNOWN = (
    "batch", "features", "mask", "complete", "settings", "scorer", "grid", "include", "exclude",
    "expect",
)  # fmt: skip


def read_recipe(path: Path) -> Recipe:
    """Reads a recipe and checks its form; what settings mean is for the plan to check.

    Raises:
        DataError: with every mistake, a line each.
    """
    return _Reader(read_toml(path)).read()


class _Reader:
    def __init__(self, file: TomlFile) -> None:
        self.file = file
        self.problems: list[str] = []

    def read(self) -> Recipe:
        values = self.file.values
        for name in values:
            if name not in KNOWN:
                self.problem((name,), f"no section {name!r}; {nearest(name, KNOWN)}")
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
                )
        settings = self.nested(("settings",), self.table(values, "settings"))
        features = self.table(values, "features")
        include, exclude = (self.chosen(values, n, Selector) for n in ("include", "exclude"))
        expect = self.chosen(values, "expect", Expected)
        if self.problems:
            raise DataError("\n".join(sorted(self.problems, key=line_of)))
        return Recipe(
            self.file, batch, features, mask, complete, of_strategy, settings, of_scorer, configs,
            grid, include, exclude, expect,
        )  # fmt: skip

    def problem(self, keys: tuple[str | int, ...], message: str) -> None:
        self.problems.append(f"{self.file.at(*keys)}: {message}")

    def table(self, values: Mapping[str, Any], name: str) -> dict[str, Any]:
        found = values.get(name, {})
        if not isinstance(found, dict):
            self.problem((name,), f"{name!r} is not a section: write [{name}]")
            return {}
        return found

    def model(self, kind: type[Any], keys: tuple[str | int, ...], values: dict[str, Any]) -> Any:
        try:
            return kind(**values)
        except ValidationError as error:
            for issue in error.errors():
                key, name = str(issue["loc"][0]), ".".join(map(str, (keys[0], *issue["loc"])))
                if issue["type"] == "extra_forbidden":
                    advice = nearest(key, kind.model_fields)
                    self.problem((*keys, key), f"no key {keys[0]}.{key}; {advice}")
                elif issue["type"] == "missing":
                    about = kind.model_fields[key].description
                    self.problem(keys, f"{name} is missing" + (f": {about}" if about else ""))
                else:
                    said = issue["msg"][0].lower() + issue["msg"][1:]
                    self.problem((*keys, key), f"{name}: {said}, got {issue['input']!r}")
            return None

    def completion(
        self, values: Mapping[str, Any]
    ) -> tuple[CompleteSection | None, dict[str, dict[str, Any]]]:
        """``[complete]``, and the ``[complete.STRATEGY]`` in it."""
        if "complete" not in values:
            return None, {}
        rest = self.table(values, "complete")
        tables = {k: v for k, v in rest.items() if k in TRAINED or isinstance(v, dict)}
        found: dict[str, dict[str, Any]] = {}
        for name, entries in tables.items():
            if name not in TRAINED:
                known = ", ".join(TRAINED)
                self.problem(("complete", name), f"{name!r} has no settings; those with: {known}")
            elif not isinstance(entries, dict):
                self.problem(("complete", name), f"write [complete.{name}]")
            else:
                found[name] = entries
                self.plain(name, entries)
        section = {k: v for k, v in rest.items() if k not in tables}
        return self.model(CompleteSection, ("complete",), section), found

    def plain(self, strategy: str, entries: Mapping[str, Any]) -> None:
        for key, value in entries.items():
            keys, name = ("complete", strategy, key), f"complete.{strategy}.{key}"
            if key == "preset" and value not in PRESETS:
                self.problem(keys, f"{name}: expected {' or '.join(PRESETS)}, got {value!r}")
            elif not isinstance(value, str | bool | int | float):
                self.problem(keys, f"{name}: expected a text, a number or a bool, got {value!r}")

    def settings(
        self, keys: tuple[str | int, ...], values: Mapping[str, Any]
    ) -> Iterator[tuple[str, str, Any]]:
        for section, entries in values.items():
            if section not in SECTIONS:
                advice = nearest(section, SECTIONS)
                self.problem((*keys, section), f"no section {section!r} of settings; {advice}")
            elif not isinstance(entries, dict):
                self.problem(
                    (*keys, section),
                    f"{section!r} is a section: write {section}.KEY = {entries!r}",
                )
            else:
                yield from ((section, key, value) for key, value in entries.items())

    def nested(self, keys: tuple[str | int, ...], values: Mapping[str, Any]) -> Settings:
        found: Settings = {}
        for section, key, value in self.settings(keys, values):
            found.setdefault(section, {})[key] = value
        return found

    def of_scorers(self, values: dict[str, Any]) -> tuple[dict[str, Settings], dict[str, str]]:
        found: dict[str, Settings] = {}
        configs: dict[str, str] = {}
        for name, entries in values.items():
            if not isinstance(entries, dict):
                self.problem(("scorer", name), f"scorer.{name} is a section: [scorer.{name}]")
                continue
            rest = dict(entries)
            config = rest.pop("config", None)
            if isinstance(config, str):
                configs[name] = config
            elif config is not None:
                self.problem(("scorer", name, "config"), f"expected a file name, got {config!r}")
            found[name] = self.nested(("scorer", name), rest)
        return found, configs

    def chosen(self, values: Mapping[str, Any], name: str, kind: type[Selector]) -> list[Chosen]:
        entries = values.get(name, [])
        if not isinstance(entries, list) or not all(isinstance(e, dict) for e in entries):
            self.problem((name,), f"write [[{name}]], once for each")
            return []
        found = []
        for i, entry in enumerate(entries):
            about = {k: v for k, v in entry.items() if k not in SECTIONS}
            settings = {k: v for k, v in entry.items() if k in SECTIONS}
            model = self.model(kind, (name, i), about)
            if model is not None:
                line = self.file.at(name, i)
                found.append(Chosen(model, self.nested((name, i), settings), line))
        return found


def line_of(problem: str) -> int:
    """The line that a problem names; those of no line come first."""
    found = re.match(r".+?:(\d+): ", problem)
    return int(found[1]) if found else 0


def combinations(grid: Mapping[tuple[str, str], list[Any]]) -> Iterator[dict[tuple[str, str], Any]]:
    """Every choice of one value an axis, in order."""
    for values in itertools.product(*grid.values()):
        yield dict(zip(grid, values, strict=True))
