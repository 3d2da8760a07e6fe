"""The configuration of a run, from defaults, a TOML file, flags and ``--set``."""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, TypeVar

import tomli_w
from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.fields import FieldInfo

from mmkgc_cli.errors import DataError, MmkgcError, nearest
from mmkgc_cli.runs.sections import (
    FeaturesConfig,
    GraphConfig,
    PluginConfig,
    RunConfig,
    StoreConfig,
)
from mmkgc_cli.runs.toml_file import NO_FILE, TomlFile, read_toml
from mmkgc_cli.runs.version_0_1 import MOVED, is_of_0_1
from mmkgc_cli.sampling.registry import DEFAULT, SAMPLERS
from mmkgc_cli.scoring.registry import SCORERS
from mmkgc_cli.state.parsing import INT64
from mmkgc_cli.training.settings import (
    DEFAULT_NAMES,
    CheckpointsSettings,
    NegativesSettings,
    TrainingSettings,
    ValidationSettings,
    variants,
)

_R = TypeVar("_R", bound=BaseModel)


class _AnySettings(BaseModel):
    """Settings of a plugin that is not loaded; any are accepted."""

    model_config = ConfigDict(extra="allow", frozen=True)


SECTIONS = (
    "model", "training", "negatives", "sampler", "loss", "optimizer", "schedule", "validation",
    "checkpoints", "features",
)  # fmt: skip
RECORDS = ("graph", "plugin", "sampler_plugin", "stores")


def read_config_file(path: Path) -> dict[str, Any]:
    """Reads the values of a TOML configuration.

    Raises:
        DataError: when the file is missing or not TOML; names the line.
    """
    return read_toml(path).values


def parse_override(text: str) -> tuple[str, str, Any]:
    """Splits ``section.key=value``; a value that is not valid TOML is a string.

    Raises:
        DataError: when `text` has another form.
    """
    target, separator, raw = text.partition("=")
    section, dot, key = target.strip().partition(".")
    if not (separator and dot and section and key):
        raise DataError(
            f"--set {text}: expected section.key=value", fix="write --set optimizer.lr=1e-4"
        )
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    except (ValueError, RecursionError):
        raise DataError(
            f"--set {target}={raw[:20]}…: expected a value of usual size", fix="shorten the value"
        ) from None
    return section, key, value


@dataclass(frozen=True)
class Entry:
    """A value of a setting, its source, and its layer; later layers override earlier ones."""

    section: str
    key: str
    value: Any
    source: str = ""
    layer: int = 0


class Selection:
    """Determines the class of each section from the entries that select it.

    `training.candidates` decides whether there are negatives and which losses exist, and `name`
    selects the class of a loss, an optimizer and a schedule.
    """

    def __init__(self, entries: Sequence[Entry]) -> None:
        """Takes the last value of each selecting setting, or its default."""
        self._values = {(entry.section, entry.key): entry.value for entry in entries}
        self.candidates = str(self._values.get(("training", "candidates"), "sampled"))
        sampler = self._values.get(("negatives", "sampler"), DEFAULT)
        self.sampler = sampler if isinstance(sampler, str) else DEFAULT

    @property
    def samples(self) -> bool:
        """Whether negatives are sampled."""
        return self.candidates != "all"

    def name(self, section: str) -> Any:
        """The value of ``section.name``."""
        return self._values.get((section, "name"), DEFAULT_NAMES[section])

    def section(self, section: str) -> type[BaseModel] | None:
        """Returns the class of a section; None if it does not apply or its name is unknown."""
        if section == "negatives":
            return NegativesSettings if self.samples else None
        if section in DEFAULT_NAMES:
            return variants(section, self.candidates).get(self.name(section))
        return _PLAIN[section]

    def context(self, section: str) -> str:
        """Describes the setting that selects the class of a section, for messages."""
        if section in ("negatives", "sampler"):
            return f"training.candidates is {self.candidates}"
        return f"{section}.name is {self.name(section)}"


_PLAIN: dict[str, type[BaseModel]] = {
    "training": TrainingSettings,
    "validation": ValidationSettings,
    "checkpoints": CheckpointsSettings,
    "features": FeaturesConfig,
}


def without_deselected(
    entries: Sequence[Entry], warn: Callable[[str], None] | None = None
) -> list[Entry]:
    """Removes settings that have no effect because a later layer selects another class.

    An override such as ``loss.name=bce`` on top of a recipe with ``loss.margin`` selects a loss
    without a margin: the recipe's value belongs to the loss that is no longer used. A setting that
    has no effect in its own layer either is kept, and `resolve` reports it.
    """
    final = Selection(entries)
    kept = []
    for entry in entries:
        selection = Selection([other for other in entries if other.layer <= entry.layer])
        if _accepts(selection, entry) and not _accepts(final, entry):
            if warn:
                warn(
                    f"{entry.source}: {entry.section}.{entry.key} is ignored, since "
                    f"{final.context(entry.section)}"
                )
        else:
            kept.append(entry)
    return kept


def _accepts(selection: Selection, entry: Entry) -> bool:
    if entry.section in ("negatives", "sampler"):
        return selection.samples
    if entry.section not in DEFAULT_NAMES or entry.key == "name":
        return True
    section = selection.section(entry.section)
    return section is not None and entry.key in section.model_fields


def resolve(
    scorer: str,
    model_class: type[BaseModel],
    *,
    file: TomlFile = NO_FILE,
    flags: Mapping[tuple[str, str], Any] | None = None,
    overrides: Sequence[str] = (),
    for_training: bool = True,
    settings_of_sampler: Callable[[str], type[BaseModel]] | None = None,
    warn: Callable[[str], None] | None = None,
) -> RunConfig:
    """Merges defaults, a file, flags and ``--set``, in this order, and validates the result.

    Args:
        scorer: name of the scorer.
        model_class: class of ``[model]``, the hyper-parameters of the scorer.
        file: a configuration file.
        flags: values of command-line flags by (section, key).
        overrides: texts of ``--set``.
        for_training: False accepts any settings of the sampler, because its plugin may be missing.
        settings_of_sampler: returns the class of ``[sampler]`` for the name of a sampler; None
            loads the plugin.
        warn: called with a line for each setting that `without_deselected` removes.

    Raises:
        DataError: for unknown keys and invalid values; one line each.
    """
    problems: list[str] = []
    entries = list(_file_entries(file, scorer, problems))
    for (section, key), value in (flags or {}).items():
        is_store = section == "features" and key not in FeaturesConfig.model_fields
        name = "negatives" if (section, key) == ("negatives", "count") else key
        flag = f"--features {key}" if is_store else f"--{name.replace('_', '-')}"
        entries.append(Entry(section, key, value, flag, 1))
    for text in overrides:
        section, key, value = parse_override(text)
        entries.append(Entry(section, key, value, f"--set {section}.{key}", 2))
    entries = without_deselected(entries, warn)
    selection = Selection(entries)
    classes: dict[str, type[BaseModel] | None] = {"model": model_class}
    classes |= {
        section: selection.section(section) for section in SECTIONS[1:] if section != "sampler"
    }
    classes["sampler"] = None
    if selection.samples:
        try:
            classes["sampler"] = (
                (settings_of_sampler or _sampler_settings)(selection.sampler)
                if for_training
                else _AnySettings
            )
        except MmkgcError as error:
            selecting = [e for e in entries if (e.section, e.key) == ("negatives", "sampler")]
            source = selecting[-1].source if selecting else "negatives.sampler"
            problems.append(f"{source}: {error}")
            classes["sampler"] = _AnySettings

    merged: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    sources: dict[tuple[str, str], str] = {}
    for entry in entries:
        if isinstance(entry.value, int) and entry.value not in INT64:
            problems.append(f"{entry.source}: expected an integer of 64 bits; write a smaller one")
            continue
        problem = _key_problem(entry, classes, selection)
        if problem:
            problems.append(f"{entry.source}: {problem}")
        else:
            merged[entry.section][entry.key] = entry.value
            sources[entry.section, entry.key] = entry.source
    parts: dict[str, Any] = {}
    for section in SECTIONS:
        section_class = classes[section]
        parts[section] = None
        if section in DEFAULT_NAMES and section_class is None:
            name, source = f"{section}.name", sources.get((section, "name"), "")
            place = source if name in source else f"{source}: {name}".removeprefix(": ")
            problems.append(f"{place}: {_name_problem(section, selection)}")
        elif section_class is not None:
            if section in DEFAULT_NAMES:
                merged[section]["name"] = selection.name(section)
            try:
                parts[section] = section_class(**merged[section])
            except ValidationError as error:
                problems += _value_problems(error, section, sources)
    if problems:
        raise DataError.joined(problems)
    parts |= {
        "graph": GraphConfig(),
        "plugin": PluginConfig(),
        "sampler_plugin": PluginConfig() if selection.samples else None,
        "stores": {},
    }
    return RunConfig(scorer=scorer, **parts)


def resolve_plugins(
    scorer: str,
    *,
    file: TomlFile = NO_FILE,
    flags: Mapping[tuple[str, str], Any] | None = None,
    overrides: Sequence[str] = (),
    warn: Callable[[str], None] | None = None,
) -> RunConfig:
    """Resolves a configuration with the settings that the scorer and the sampler declare.

    Unknown keys and invalid values are first reported from the sources of the plugins, without
    importing a plugin or torch.

    Raises:
        UsageError: for an unknown scorer.
        DataError: as `resolve`.
    """
    resolve(
        scorer,
        SCORERS.settings(scorer, validated=False),
        file=file,
        flags=flags,
        overrides=overrides,
        settings_of_sampler=lambda name: SAMPLERS.settings(name, validated=False),
    )
    settings: type[BaseModel] = SCORERS.load(scorer).Config
    return resolve(scorer, settings, file=file, flags=flags, overrides=overrides, warn=warn)


def _sampler_settings(sampler: str) -> type[BaseModel]:
    return SAMPLERS.load(sampler).Config


def _key_problem(
    entry: Entry, classes: Mapping[str, type[BaseModel] | None], selection: Selection
) -> str:
    """Describes an unknown section or key; empty if both are known."""
    section, key = entry.section, entry.key
    dotted = f"{section}.{key}"
    if section not in SECTIONS:
        return f"no section {section!r}; {nearest(section, SECTIONS)}"
    section_class = classes[section]
    if section_class is None:
        if section in DEFAULT_NAMES:  # the unknown name is reported separately
            return ""
        return (
            f"{dotted} has no effect when {selection.context(section)}, which scores all entities; "
            "leave it out"
        )
    if key in section_class.model_fields or section_class.model_config.get("extra") == "allow":
        return ""
    if section in DEFAULT_NAMES:
        owners = [
            name
            for name, other in variants(section, selection.candidates).items()
            if key in other.model_fields
        ]
        if owners:
            return (
                f"{dotted} has no effect when {selection.context(section)}; leave it out, or set "
                f"{section}.name to {' or '.join(owners)}"
            )
    if section == "sampler":
        names = ", ".join(section_class.model_fields)
        fix = f"its settings: {names}" if names else "it has no settings"
        return f"no key {dotted} of the sampler {selection.sampler!r}; {fix}"
    if new_name := MOVED.get(dotted):
        return f"no key {dotted}; it is {new_name} now"
    known = [
        f"{name}.{field}" for name, cls in classes.items() if cls for field in cls.model_fields
    ]
    # Suggest the same key in another section rather than a similar key.
    elsewhere = [name for name in known if name.endswith(f".{key}")]
    fix = f"did you mean {elsewhere[0]!r}?" if elsewhere else nearest(dotted, known)
    return f"no key {dotted}; {fix}"


def _name_problem(section: str, selection: Selection) -> str:
    """Describes an unknown value of ``section.name``."""
    name, known = selection.name(section), variants(section, selection.candidates)
    if section == "loss" and name in variants("loss", "sampled"):
        return (
            f"{name!r} compares a positive with negatives, and training.candidates = "
            f"'all' samples none; set loss.name to {' or '.join(known)}"
        )
    fix = nearest(name, known) if isinstance(name, str) else f"expected {' or '.join(known)}"
    return f"no {section} is called {name!r}; {fix}"


def _value_problems(
    error: ValidationError, section: str, sources: Mapping[tuple[str, str], str]
) -> Iterator[str]:
    for issue in error.errors():
        if not issue["loc"]:  # a conflict of several settings
            message = issue["msg"].removeprefix("Value error, ")
            yield f"{section}.{message}" if section in DEFAULT_NAMES else f"{section}: {message}"
            continue
        key = str(issue["loc"][0])
        name, source = f"{section}.{key}", sources.get((section, key), "")
        place = source if name in source else f"{source}: {name}".removeprefix(": ")
        yield f"{place}: {describe_issue(issue)}; change the value of {name}"


def describe_issue(issue: Mapping[str, Any]) -> str:
    """Describes an invalid value: the message of pydantic, and the value."""
    message = issue["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}, got {issue['input']!r}"


def require_present_form(values: Mapping[str, Any], path: Path | str) -> None:
    """Refuses settings with names of mmkgc 0.1.

    Raises:
        DataError: when there are any; its fix rewrites the file or run at `path`.
    """
    if is_of_0_1(values):
        raise DataError(
            f"{path}: the settings have the names of mmkgc 0.1",
            fix=f"rewrite them with: mmkgc config upgrade {path}",
        )


def _file_entries(file: TomlFile, scorer: str, problems: list[str]) -> Iterator[Entry]:
    require_present_form(file.values, file.name)
    for section, values in file.values.items():
        if section == "scorer":
            if values != scorer:
                problems.append(
                    f"{file.location(section)}: scorer is {values!r}, and the command trains "
                    f"{scorer!r}; change one of them"
                )
        elif section in RECORDS:
            continue  # records of another run; the command line sets graph and scorer
        elif not isinstance(values, Mapping):
            problems.append(
                f"{file.location(section)}: {section!r} is not a section; known: "
                f"{', '.join(SECTIONS)}"
            )
        else:
            for key, value in values.items():
                yield Entry(section, key, value, file.location(section, key))


def unlike_defaults(
    values: Mapping[str, Any], model_class: type[BaseModel] | None
) -> dict[str, tuple[Any, Any]]:
    """Returns the settings that differ from their defaults, as (value, default).

    The default is None if there is none, or without `model_class`.
    """
    entries = [
        Entry(section, key, value)
        for section, section_values in values.items()
        if section in SECTIONS and isinstance(section_values, Mapping)
        for key, value in section_values.items()
    ]
    selection = Selection(entries)
    fields: dict[str, Mapping[str, FieldInfo]] = {}
    for section in SECTIONS:
        if section == "model":
            section_class = model_class
        elif section == "sampler":
            section_class = None
            if selection.samples:
                try:
                    section_class = SAMPLERS.settings(selection.sampler, validated=False)
                except MmkgcError:  # the plugin is missing
                    section_class = None
        else:
            section_class = selection.section(section)
        fields[section] = section_class.model_fields if section_class else {}
    different = unlike(values, fields)
    return {
        key: pair
        for key, pair in different.items()
        if not (key.endswith(".name") and pair[0] == DEFAULT_NAMES.get(key.partition(".")[0]))
    }


def unlike(
    values: Mapping[str, Any], sections: Mapping[str, Mapping[str, FieldInfo]]
) -> dict[str, tuple[Any, Any]]:
    """Returns settings of `sections` that differ from their defaults, as `unlike_defaults`."""
    different: dict[str, tuple[Any, Any]] = {}
    for section, fields in sections.items():
        entries = values.get(section)
        for key, value in entries.items() if isinstance(entries, Mapping) else ():
            known = fields.get(key)
            default = known.default if known and not known.is_required() else None
            if known is None or value != default:
                different[f"{section}.{key}"] = (value, default)
    return different


def values_of(config: RunConfig) -> dict[str, Any]:
    """Returns the configuration as plain values, without sections and settings that are None."""
    values: dict[str, Any] = {"scorer": config.scorer}
    for section in ("graph", "plugin", "sampler_plugin", *SECTIONS):
        part: BaseModel | None = getattr(config, section)
        if part is not None:
            values[section] = part.model_dump(exclude_none=True)
    values["stores"] = {name: store.model_dump() for name, store in config.stores.items()}
    return values


def to_toml(config: RunConfig) -> str:
    """Formats the configuration as TOML, from which `resolve` restores the same values."""
    return tomli_w.dumps(values_of(config))


def from_toml(path: Path, model_class_of: Any, *, for_training: bool = True) -> RunConfig:
    """Reads a resolved configuration.

    Args:
        path: ``config.toml`` of a run.
        model_class_of: returns the config class for the name of a scorer.
        for_training: see `resolve`.

    Raises:
        DataError: when the file is not a resolved configuration.
    """
    file = read_toml(path)
    values = file.values
    scorer = values.get("scorer")
    if "strategy" in values:
        raise DataError(
            f"{path}: this run is a completion and has no scorer",
            fix="pass a run of `mmkgc train`",
        )
    if not isinstance(scorer, str):
        raise DataError(f"{path}: `scorer` is missing", fix="pass a run directory of `mmkgc train`")
    config = resolve(scorer, model_class_of(scorer), file=file, for_training=for_training)
    return replace(
        config,
        graph=read_record(path, values, "graph", GraphConfig),
        plugin=read_record(path, values, "plugin", PluginConfig),
        sampler_plugin=read_record(path, values, "sampler_plugin", PluginConfig)
        if config.negatives
        else None,
        stores={
            name: read_record(path, values["stores"], name, StoreConfig)
            for name in values.get("stores", {})
        },
    )


def read_record(path: Path, values: Mapping[str, Any], section: str, model: type[_R]) -> _R:
    """Reads a section that a run recorded; missing fields get their defaults.

    Raises:
        DataError: when the section is damaged.
    """
    try:
        return model(**values.get(section, {}))
    except (ValidationError, TypeError) as error:
        raise DataError(
            f"{path}: the section {section!r} is damaged", fix="restore the file, or train again"
        ) from error
