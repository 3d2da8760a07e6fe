"""The configuration of a run: defaults, one TOML file, dotted overrides; unknown keys refused."""

from __future__ import annotations

import contextlib
import tomllib
from collections.abc import Iterator, Mapping, Sequence
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
    TrainingConfig,
)
from mmkgc_cli.runs.toml_file import NO_LINES, Keys, read_toml, where
from mmkgc_cli.sampling.contract import SamplerConfig
from mmkgc_cli.sampling.registry import DEFAULT, load_sampler
from mmkgc_cli.scoring.contract import ScorerConfig

_R = TypeVar("_R", bound=BaseModel)


class _AnySampler(SamplerConfig):
    """Settings of a sampler that nobody is about to draw with."""

    model_config = ConfigDict(extra="allow", frozen=True)


SECTIONS = ("model", "training", "sampler", "features")
RECORDS = ("graph", "plugin", "sampler_plugin", "stores")


def read_config_file(path: Path) -> dict[str, Any]:
    """The values of a TOML configuration.

    Raises:
        DataError: when it is missing or not TOML, with the line.
    """
    return read_toml(path).values


def parse_override(text: str) -> tuple[str, str, Any]:
    """Splits ``section.key=value``; the value is read as TOML, or else taken as a string.

    Raises:
        DataError: when it has no such form.
    """
    target, separator, raw = text.partition("=")
    section, dot, key = target.strip().partition(".")
    if not (separator and dot and section and key):
        raise DataError(f"--set {text}: expected section.key=value, such as training.lr=1e-4")
    try:
        value = tomllib.loads(f"value = {raw}")["value"]
    except tomllib.TOMLDecodeError:
        value = raw.strip()
    return section, key, value


def resolve(
    scorer: str,
    model_class: type[ScorerConfig],
    file_values: Mapping[str, Any],
    file_name: str,
    flags: Mapping[tuple[str, str], Any],
    overrides: Sequence[str],
    for_training: bool = True,
    lines: Mapping[Keys, int] = NO_LINES,
) -> RunConfig:
    """Joins defaults, a file, flags and ``--set``, later ones winning, and checks everything.

    Args:
        scorer: name of the scorer, with `model_class` its typed hyper-parameters.
        file_values: contents of the configuration file, `file_name` its name for messages.
        flags: values of command-line flags by (section, key).
        overrides: texts of ``--set``.
        for_training: whether the sampler, which may be a plugin, has to be there.
        lines: of the file, where its keys stand (`read_toml`).

    Raises:
        DataError: with every unknown key and bad value at once, one per line.
    """
    classes: dict[str, type[BaseModel]] = {
        "model": model_class,
        "training": TrainingConfig,
        "features": FeaturesConfig,
    }
    entries: list[tuple[str, str, Any, str]] = []
    merged: dict[str, dict[str, Any]] = {section: {} for section in SECTIONS}
    origin: dict[tuple[str, str], str] = {}
    problems: list[str] = []

    def take(section: str, key: str, value: Any, source: str) -> None:
        if section not in classes:
            problems.append(f"{source}: no section {section!r}; {nearest(section, classes)}")
        elif not (key in classes[section].model_fields or _takes_any(classes[section])):
            known, dotted = _dotted(classes), f"{section}.{key}"
            # The right key in the wrong section is nearer than any spelling.
            elsewhere = [name for name in known if name.endswith(f".{key}")]
            advice = f"did you mean {elsewhere[0]!r}?" if elsewhere else nearest(dotted, known)
            if section == "sampler" and not classes[section].model_fields:
                advice = f"the sampler {sampler!r} has no settings"
            elif section == "sampler":
                advice = f"settings of {sampler!r}: {', '.join(classes[section].model_fields)}"
            problems.append(f"{source}: no key {dotted}; {advice}")
        else:
            merged[section][key] = value
            origin[section, key] = source

    for section, key, value in _file_entries(file_values, file_name, lines, scorer, problems):
        entries.append((section, key, value, where(file_name, lines, section, key)))
    for (section, key), value in flags.items():
        of_store = section == "features" and key not in FeaturesConfig.model_fields
        flag = f"--features {key}" if of_store else f"--{key.replace('_', '-')}"
        entries.append((section, key, value, flag))
    for text in overrides:
        section, key, value = parse_override(text)
        entries.append((section, key, value, f"--set {section}.{key}"))
    sampler, origin_of_sampler = _sampler_of(entries)
    try:
        classes["sampler"] = load_sampler(sampler).Config if for_training else _AnySampler
    except MmkgcError as error:
        problems.append(f"{origin_of_sampler}: {error}")
        # What its settings would be is not known then.
        entries = [entry for entry in entries if entry[0] != "sampler"]
        classes["sampler"] = SamplerConfig
    for entry in entries:
        take(*entry)

    parts: dict[str, Any] = {}
    for section, model in classes.items():
        try:
            parts[section] = model(**merged[section])
        except ValidationError as error:
            for issue in error.errors():
                if not issue["loc"]:  # of several settings together
                    problems.append(f"{section}: {issue['msg'].removeprefix('Value error, ')}")
                    continue
                key = str(issue["loc"][0])
                name, source = f"{section}.{key}", origin.get((section, key), "")
                place = source if name in source else f"{source}: {name}".removeprefix(": ")
                problems.append(f"{place}: {what_is_wrong(issue)}")
    if problems:
        raise DataError("\n".join(problems))
    # model_construct keeps the scorer's own config class, validated just now.
    parts |= {
        "graph": GraphConfig(),
        "plugin": PluginConfig(),
        "sampler_plugin": PluginConfig(),
        "stores": {},
    }
    return RunConfig.model_construct(scorer=scorer, **parts)


def what_is_wrong(issue: Mapping[str, Any]) -> str:
    """What was expected of one setting, and what came, in the words of pydantic."""
    message = issue["msg"].removeprefix("Value error, ")
    return f"{message[0].lower()}{message[1:]}, got {issue['input']!r}"


def _takes_any(model: type[BaseModel]) -> bool:
    """Whether keys without a field are taken, as modalities are."""
    return model.model_config.get("extra") == "allow"


def _sampler_of(entries: Sequence[tuple[str, str, Any, str]]) -> tuple[str, str]:
    """The sampler that is asked for last, and where."""
    asked = [entry[2:] for entry in entries if entry[:2] == ("training", "sampler")]
    # Anything but a name is told of when the training's settings are checked.
    return asked[-1] if asked and isinstance(asked[-1][0], str) else (DEFAULT, "training.sampler")


def _dotted(classes: Mapping[str, type[BaseModel]]) -> list[str]:
    return [f"{section}.{key}" for section, model in classes.items() for key in model.model_fields]


def _file_entries(
    values: Mapping[str, Any],
    name: str,
    lines: Mapping[Keys, int],
    scorer: str,
    problems: list[str],
) -> Iterator[tuple[str, str, Any]]:
    for section, entries in values.items():
        at = where(name, lines, section)
        if section == "scorer":
            if entries != scorer:
                problems.append(f"{at}: scorer is {entries!r}, the command says {scorer!r}")
        elif section in RECORDS:
            continue  # the record of another run; the command line names graph and scorer
        elif not isinstance(entries, Mapping):
            problems.append(f"{at}: {section!r} is not a section; known: {', '.join(SECTIONS)}")
        else:
            for key, value in entries.items():
                yield section, key, value


def unlike_defaults(
    values: Mapping[str, Any], model_class: type[ScorerConfig] | None
) -> dict[str, tuple[Any, Any]]:
    """Settings of a resolved configuration that are not the defaults, each with its default.

    The default is None where there is none, or no `model_class` to ask.
    """
    training = values.get("training")
    name = training.get("sampler", DEFAULT) if isinstance(training, Mapping) else DEFAULT
    sections: dict[str, type[BaseModel] | None] = {
        "model": model_class,
        "training": TrainingConfig,
        "sampler": None,
        "features": FeaturesConfig,
    }
    with contextlib.suppress(MmkgcError):  # a plugin that is no longer there
        sections["sampler"] = load_sampler(str(name)).Config
    return unlike(values, {name: of.model_fields if of else {} for name, of in sections.items()})


def unlike(
    values: Mapping[str, Any], sections: Mapping[str, Mapping[str, FieldInfo]]
) -> dict[str, tuple[Any, Any]]:
    """As `unlike_defaults`, of any sections whose fields are known."""
    found: dict[str, tuple[Any, Any]] = {}
    for section, fields in sections.items():
        entries = values.get(section)
        for key, value in entries.items() if isinstance(entries, Mapping) else ():
            known = fields.get(key)
            default = known.default if known and not known.is_required() else None
            if known is None or value != default:
                found[f"{section}.{key}"] = (value, default)
    return found


def values_of(config: RunConfig) -> dict[str, Any]:
    """The resolved configuration as plain values."""
    return {
        "scorer": config.scorer,
        "graph": config.graph.model_dump(),
        "plugin": config.plugin.model_dump(),
        "sampler_plugin": config.sampler_plugin.model_dump(),
        "model": config.model.model_dump(),
        "training": config.training.model_dump(),
        "sampler": config.sampler.model_dump(),
        "features": config.features.model_dump(),
        "stores": {name: store.model_dump() for name, store in config.stores.items()},
    }


def to_toml(config: RunConfig) -> str:
    """The resolved configuration as TOML; `resolve` reads it back to the same values."""
    return tomli_w.dumps(values_of(config))


def from_toml(path: Path, model_class_of: Any, for_training: bool = True) -> RunConfig:
    """Reads back a resolved configuration.

    Args:
        path: ``config.toml`` of a run.
        model_class_of: gives the config class for a scorer's name.
        for_training: see `resolve`.

    Raises:
        DataError: when the file is not a resolved configuration.
    """
    file = read_toml(path)
    values = file.values
    scorer = values.get("scorer")
    if "strategy" in values:
        raise DataError(
            f"{path}: the run of a completion, which has no scorer; expected one of `mmkgc train`"
        )
    if not isinstance(scorer, str):
        raise DataError(f"{path}: names no scorer; is this a run directory?")
    config = resolve(
        scorer, model_class_of(scorer), values, str(path), {}, [], for_training, file.lines
    )
    return config.model_copy(
        update={
            "graph": read_record(path, values, "graph", GraphConfig),
            "plugin": read_record(path, values, "plugin", PluginConfig),
            "sampler_plugin": read_record(path, values, "sampler_plugin", PluginConfig),
            "stores": {
                name: read_record(path, values["stores"], name, StoreConfig)
                for name in values.get("stores", {})
            },
        }
    )


def read_record(path: Path, values: Mapping[str, Any], section: str, model: type[_R]) -> _R:
    """A section that a run recorded of itself; what is missing has its default.

    Raises:
        DataError: when it is not what a run writes.
    """
    try:
        return model(**values.get(section, {}))
    except (ValidationError, TypeError) as error:
        raise DataError(f"{path}: the section {section!r} is damaged") from error
