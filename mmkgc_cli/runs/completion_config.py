"""Configuration of a trained completion: a preset, overrides, and ``config.toml``."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from mmkgc_cli.completion.maco.settings import PRESETS, MacoSettings
from mmkgc_cli.completion.pipeline import CompletionRequest
from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.runs.config import (
    describe_issue,
    parse_override,
    read_record,
    require_present_form,
    unlike,
)
from mmkgc_cli.runs.sections import GraphConfig
from mmkgc_cli.runs.toml_file import read_toml
from mmkgc_cli.runs.version_0_1 import MOVED
from mmkgc_cli.training.settings import CheckpointsSettings, Device, Section


class CompletionTraining(Section):
    """``[training]`` of a completion: device and threads; ``[maco]`` has the other settings."""

    device: Device = Field("auto", description="Device to train on.")
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 keeps the default of torch.")


class CompletionValidation(Section):
    """``[validation]`` of a completion."""

    every: int = Field(
        25,
        ge=1,
        description="Epochs between measurements on held-out vectors; for information only.",
    )


class CompletionSection(Section):
    """Fields of a `CompletionRequest`, with the paths of the input and output stores."""

    modality: str
    variant: str = "gen"
    missing_rate: float | None = None
    mask_seed: int = 0
    pattern: str = "random"
    seed: int = 0
    allow_other_train: bool = False
    store: str
    sha256: str = ""
    out: str

    def request(self, strategy: str) -> CompletionRequest:
        """Builds the request for `strategy`."""
        names = [field.name for field in dataclasses.fields(CompletionRequest)]
        return CompletionRequest(strategy=strategy, **self.model_dump(include=set(names)))


def section_of(request: CompletionRequest, store: Path, out: Path) -> CompletionSection:
    """Builds the section of a request, with absolute paths."""
    values = dataclasses.asdict(request)
    known = {key: values[key] for key in CompletionSection.model_fields if key in values}
    return CompletionSection(**known, store=str(store.resolve()), out=str(out.resolve()))


class CompletionConfig(Section):
    """Everything that determines a trained completion."""

    strategy: Literal["maco"] = "maco"
    graph: GraphConfig = Field(default_factory=GraphConfig)
    completion: CompletionSection
    maco: MacoSettings
    training: CompletionTraining
    validation: CompletionValidation
    checkpoints: CheckpointsSettings


SECTIONS: dict[str, type[Section]] = {
    "training": CompletionTraining,
    "validation": CompletionValidation,
    "checkpoints": CheckpointsSettings,
}


def resolve_completion(
    completion: CompletionSection, preset: str, flags: Mapping[tuple[str, str], Any],
    overrides: Sequence[str],
) -> CompletionConfig:  # fmt: skip
    """Merges a preset, flags and ``--set``, in increasing priority, and validates all settings.

    Raises:
        UsageError: for an unknown preset.
        DataError: for unknown keys and invalid values, one line each.
    """
    if preset not in PRESETS:
        raise UsageError(f"unknown preset {preset!r}", fix=nearest(preset, PRESETS))
    fields = {"maco": {field.name for field in dataclasses.fields(MacoSettings)} - {"seed"}}
    fields |= {section: set(model.model_fields) for section, model in SECTIONS.items()}
    dotted = [f"{section}.{key}" for section, keys in fields.items() for key in keys]
    values: dict[str, dict[str, Any]] = {section: {} for section in fields}
    origin: dict[tuple[str, str], str] = {}
    problems = []
    entries = [(*place, value, f"--{place[1].replace('_', '-')}") for place, value in flags.items()]
    for text in overrides:
        section, key, value = parse_override(text)
        entries.append((section, key, value, f"--set {section}.{key}"))
    for section, key, value, source in entries:
        if (section, key) == ("maco", "seed"):
            problems.append(f"{source}: the seed is not a setting; pass --seed")
        elif key not in fields.get(section, ()):
            name = f"{section}.{key}"
            fix = f"it is {MOVED[name]} now" if name in MOVED else nearest(name, dotted)
            problems.append(f"{source}: unknown setting {name}; {fix}")
        else:
            values[section][key] = value
            origin[section, key] = source
    preset_values = dataclasses.asdict(PRESETS[preset]) | {"seed": completion.seed}
    models: dict[str, Any] = {}
    classes: dict[str, tuple[Any, dict[str, Any]]] = {
        "maco": (MacoSettings, preset_values | values["maco"]),
        **{section: (model, values[section]) for section, model in SECTIONS.items()},
    }
    for section, (model, settings) in classes.items():
        try:
            models[section] = model(**settings)
        except ValidationError as error:
            problems += _invalid_values(error, section, origin)
    if problems:
        raise DataError.joined(problems)
    return CompletionConfig(completion=completion, **models)


def _invalid_values(
    error: ValidationError, section: str, origin: Mapping[tuple[str, str], str]
) -> Iterator[str]:
    for issue in error.errors():
        key = str(issue["loc"][0])
        source = origin.get((section, key), f"{section}.{key}")
        yield f"{source}: {describe_issue(issue)}; change the value of {section}.{key}"


def unlike_defaults(values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings of a completion that differ from the defaults, as (value, default)."""
    maco: Mapping[str, FieldInfo] = vars(MacoSettings)["__pydantic_fields__"]
    return unlike(
        values, {"maco": maco, **{name: kind.model_fields for name, kind in SECTIONS.items()}}
    )


def to_toml(config: CompletionConfig) -> str:
    """Serializes the configuration to TOML, which `read_completion` reads."""
    completion = config.completion.model_dump(exclude_none=True)  # TOML has no null
    return tomli_w.dumps(
        {
            "strategy": config.strategy, "graph": config.graph.model_dump(),
            "completion": completion, "maco": dataclasses.asdict(config.maco),
            **{section: getattr(config, section).model_dump() for section in SECTIONS},
        }
    )  # fmt: skip


def read_completion(path: Path) -> CompletionConfig:
    """Reads the configuration of a run from its ``config.toml``.

    Raises:
        DataError: when it is not the configuration of a completion.
    """
    values = read_toml(path).values
    require_present_form(values, path.parent)
    if "strategy" not in values:
        resume = f"resume a training with mmkgc train --resume {path.parent}"
        raise DataError(
            f"{path}: expected the configuration of a completion, got no strategy",
            fix=resume if "scorer" in values else "choose a run from mmkgc runs list",
        )
    sections: dict[str, type[BaseModel] | Any] = {
        "graph": GraphConfig, "completion": CompletionSection, "maco": MacoSettings,
        **SECTIONS,
    }  # fmt: skip
    models = {name: read_record(path, values, name, model) for name, model in sections.items()}
    try:
        return CompletionConfig(strategy=values["strategy"], **models)
    except ValidationError:
        raise DataError(
            f"{path}: expected strategy 'maco', got {values['strategy']!r}",
            fix="complete again with --strategy maco into a new --run",
        ) from None
