"""The configuration of a completion that is trained: a preset, overrides, and its record."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import tomli_w
from pydantic import BaseModel, Field, ValidationError
from pydantic.fields import FieldInfo

from mmkgc_cli.completion.maco.settings import PRESETS, MacoSettings
from mmkgc_cli.completion.pipeline import Request
from mmkgc_cli.errors import DataError, UsageError, nearest
from mmkgc_cli.runs.config import (
    parse_override,
    read_record,
    require_present_form,
    unlike,
    what_is_wrong,
)
from mmkgc_cli.runs.sections import GraphConfig
from mmkgc_cli.runs.toml_file import read_toml
from mmkgc_cli.runs.version_0_1 import MOVED
from mmkgc_cli.training.settings import CheckpointsSettings, Device, Section


class CompletionTraining(Section):
    """``[training]`` of a completion: the machine; what is learnt is in ``[maco]``."""

    device: Device = Field("auto", description="Device to train on.")
    threads: int = Field(0, ge=0, le=4096, description="CPU threads; 0 keeps the default of torch.")


class CompletionValidation(Section):
    """``[validation]`` of a completion."""

    every: int = Field(
        25,
        ge=1,
        description="Epochs between measurements on held-out vectors; they decide nothing.",
    )


class CompletionSection(Section):
    """What is completed, as `completion.completing.Request` has it, and from where to where."""

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

    def request(self, strategy: str) -> Request:
        """As completion takes it."""
        names = [field.name for field in dataclasses.fields(Request)]
        return Request(strategy=strategy, **self.model_dump(include=set(names)))


def section_of(request: Request, store: Path, out: Path) -> CompletionSection:
    """A request as a section, with the files it is about at their absolute places."""
    values = dataclasses.asdict(request)
    known = {key: values[key] for key in CompletionSection.model_fields if key in values}
    return CompletionSection(**known, store=str(store.resolve()), out=str(out.resolve()))


class CompletionConfig(Section):
    """Everything that decides a completion."""

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
    """Joins a preset, flags and ``--set``, later ones winning, and checks everything.

    Raises:
        UsageError: for a preset that does not exist.
        DataError: with every unknown key and bad value at once, one per line.
    """
    if preset not in PRESETS:
        raise UsageError(f"preset {preset!r}: {nearest(preset, PRESETS)}")
    fields = {"maco": {field.name for field in dataclasses.fields(MacoSettings)} - {"seed"}}
    fields |= {section: set(kind.model_fields) for section, kind in SECTIONS.items()}
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
            problems.append(f"{source}: the seed is given by --seed")
        elif key not in fields.get(section, ()):
            name = f"{section}.{key}"
            fix = f"it is {MOVED[name]} now" if name in MOVED else nearest(name, dotted)
            problems.append(f"{source}: no key {name}; {fix}")
        else:
            values[section][key] = value
            origin[section, key] = source
    given = dataclasses.asdict(PRESETS[preset]) | {"seed": completion.seed}
    parts: dict[str, Any] = {}
    kinds: dict[str, tuple[Any, dict[str, Any]]] = {
        "maco": (MacoSettings, given | values["maco"]),
        **{section: (kind, values[section]) for section, kind in SECTIONS.items()},
    }
    for section, (kind, of_section) in kinds.items():
        try:
            parts[section] = kind(**of_section)
        except ValidationError as error:
            problems += _said(error, section, origin)
    if problems:
        raise DataError("\n".join(problems))
    return CompletionConfig(completion=completion, **parts)


def _said(
    error: ValidationError, section: str, origin: Mapping[tuple[str, str], str]
) -> Iterator[str]:
    for issue in error.errors():
        key = str(issue["loc"][0])
        yield f"{origin.get((section, key), f'{section}.{key}')}: {what_is_wrong(issue)}"


def unlike_defaults(values: Mapping[str, Any]) -> dict[str, tuple[Any, Any]]:
    """Settings of a completion that are not the defaults, each with its default."""
    maco: Mapping[str, FieldInfo] = vars(MacoSettings)["__pydantic_fields__"]
    return unlike(
        values, {"maco": maco, **{name: kind.model_fields for name, kind in SECTIONS.items()}}
    )


def to_toml(config: CompletionConfig) -> str:
    """The configuration as TOML, for `read_completion`."""
    completion = config.completion.model_dump(exclude_none=True)  # TOML knows no null
    return tomli_w.dumps(
        {
            "strategy": config.strategy, "graph": config.graph.model_dump(),
            "completion": completion, "maco": dataclasses.asdict(config.maco),
            **{section: getattr(config, section).model_dump() for section in SECTIONS},
        }
    )  # fmt: skip


def read_completion(path: Path) -> CompletionConfig:
    """The configuration of a run, from its ``config.toml``.

    Raises:
        DataError: when it is not that of a completion.
    """
    values = read_toml(path).values
    require_present_form(values, path.parent)
    if "strategy" not in values:
        raise DataError(
            f"{path}: not the run of a completion"
            + ("; go on with: mmkgc train --resume" if "scorer" in values else "")
        )
    sections: dict[str, type[BaseModel] | Any] = {
        "graph": GraphConfig, "completion": CompletionSection, "maco": MacoSettings,
        **SECTIONS,
    }  # fmt: skip
    parts = {name: read_record(path, values, name, kind) for name, kind in sections.items()}
    try:
        return CompletionConfig(strategy=values["strategy"], **parts)
    except ValidationError:
        known = nearest(str(values["strategy"]), ["maco"])
        raise DataError(f"{path}: strategy {values['strategy']!r}; {known}") from None
