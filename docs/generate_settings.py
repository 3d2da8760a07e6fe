"""Writes docs/settings.md from the classes of the settings: ``make docs`` runs it.

    python -m docs.generate_settings

A test fails if the page differs from the output of `page`. `INTRODUCTION` and `NOTES` contain the
text that is not in the classes.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from types import UnionType
from typing import Any, Literal, Union, get_args, get_origin

from pydantic import BaseModel
from pydantic.fields import FieldInfo

from mmkgc_cli.runs.sections import FeaturesConfig
from mmkgc_cli.scoring.describe import field_range
from mmkgc_cli.training.settings import (
    LOSSES,
    OPTIMIZERS,
    SCHEDULES,
    CheckpointsSettings,
    NegativesSettings,
    TrainingSettings,
    ValidationSettings,
)

PAGE = Path(__file__).parent / "settings.md"

INTRODUCTION = """# Settings

Every setting has a name, `section.key`, for `--set section.key=value` or a TOML file given as `--config`:

```toml
[loss]
name = "margin-inside"
margin = 6.0

[optimizer]
lr = 2e-5
```

If several sources give a setting, the last one in this order applies: defaults, the file, flags, `--set`. A key that
the selected loss, optimizer, schedule or value of `training.candidates` does not have is an error. If
`--set loss.name=…` selects another loss than the file, settings in the file that the new loss does not have are ignored
with a warning. Settings of scorers are in `[model]` and settings of samplers in `[sampler]`; `mmkgc scorers show NAME`
lists them, and [scorers.md](scorers.md) introduces scorers and samplers.

This page is generated from the classes in `mmkgc_cli/training/settings.py` (`make docs`). mmkgc 0.1 had other names;
`mmkgc config upgrade FILE|RUN|BATCH` rewrites its files.
"""

NOTES = """## Notes

**All entities as candidates.** With `training.candidates = "all"` every entity is scored for every query and no
negatives are sampled, so settings in `[negatives]` and `[sampler]` are errors. `bce` iterates over the distinct queries
of train, (h, r, ?) and (?, r, t), with all train answers as labels (1-N; Dettmers et al., 2018; Balažević et al.,
2019). `softmax` iterates over the train triples on both sides, with one answer each (1-vs-all; Lacroix et al., 2018).
Head queries of a scorer with reciprocal relations are tail queries of the inverse relation in the same batch.

**Samplers.** `filtered` resamples negatives that are train triples. `shared` samples `negatives.count` entities per
chunk of `sampler.chunk` positives and masks negatives that are train triples. It reads fewer rows per step
([benchmarks.md](benchmarks.md)), but its gradients have a higher variance. The corrupted side is sampled per chunk, so
`negatives.corrupted_side = "per-positive"` is an error.

**MACO's loss.** The settings of its released code for `ikrl` and `tbkgc` are `loss.name = "margin-inside"`,
`loss.margin = 6`, `loss.temperature = 2`, 32 negatives (64 for `tbkgc`) and `optimizer.lr = 2e-5`.

**Reproducibility.** The same seed gives the same weights on the same machine with the same number of threads.
"""


def type_of(annotation: Any) -> str:
    """The type of a setting as the page names it."""
    origin = get_origin(annotation)
    if origin in (Union, UnionType):
        return type_of(next(arm for arm in get_args(annotation) if arm is not type(None)))
    if origin is Literal:
        return ", ".join(f"`{value}`" for value in get_args(annotation))
    if origin is list:
        return f"list of {type_of(get_args(annotation)[0])}s"
    name: str = annotation.__name__
    return {"str": "text", "int": "integer", "float": "number", "bool": "true or false"}.get(
        name, name
    )


def default_of(field: FieldInfo) -> str:
    """The default of a setting in TOML; empty without one."""
    value = None if field.is_required() else field.get_default()
    if value is None:
        return ""
    if isinstance(value, bool):
        return str(value).lower()
    return str(value) if not isinstance(value, str) else f'"{value}"'


def rows(section: str, section_class: type[BaseModel]) -> Iterator[str]:
    """A row of the table per setting."""
    for key, field in section_class.model_fields.items():
        if key == "name" and section in ("loss", "optimizer", "schedule"):
            continue
        bounds = field_range(field)
        kind = type_of(field.annotation) + (f", {bounds}" if bounds else "")
        yield f"| `{section}.{key}` | {kind} | {default_of(field)} | {field.description} |"


def table(section: str, section_class: type[BaseModel]) -> str:
    """The table of a section."""
    lines = [*rows(section, section_class)]
    if not lines:
        return "No further settings."
    return "\n".join(
        ["| setting | type and range | default | meaning |", "|---|---|---|---|", *lines]
    )


def title(section_class: type[BaseModel]) -> str:
    """The first line of a class's docstring, without the name of the section."""
    line = (section_class.__doc__ or "").strip().splitlines()[0]
    line = line.partition("]``: ")[2] or line
    return (line[0].upper() + line[1:]).replace("``", "`")


def variants_of(section: str, classes: tuple[type[BaseModel], ...]) -> Iterator[str]:
    """A heading and a table per class that ``section.name`` selects."""
    for section_class in classes:
        names = get_args(section_class.model_fields["name"].annotation)
        yield f"### `{section}.name` = {', '.join(f'`{name}`' for name in names)}\n"
        yield f"{title(section_class)}\n"
        yield table(section, section_class) + "\n"


def page() -> str:
    """The whole page."""
    parts = [INTRODUCTION]
    section_class: type[BaseModel]
    for section, section_class in (
        ("training", TrainingSettings),
        ("negatives", NegativesSettings),
    ):
        parts += [
            f"## `[{section}]`\n",
            title(section_class) + "\n",
            table(section, section_class) + "\n",
        ]
    parts.append("## `[loss]`\n")
    parts.append('The default is `self-adversarial`. With `training.candidates = "sampled"`:\n')
    parts += variants_of("loss", LOSSES["sampled"])
    parts.append('With `training.candidates = "all"`, where `loss.name` must be given:\n')
    parts += variants_of("loss", LOSSES["all"])
    parts += [
        "## `[optimizer]`\n",
        "The default is `adam`.\n",
        *variants_of("optimizer", OPTIMIZERS),
    ]
    parts += [
        "## `[schedule]`\n",
        "The default is `constant`.\n",
        *variants_of("schedule", SCHEDULES),
    ]
    for section, section_class in (
        ("validation", ValidationSettings),
        ("checkpoints", CheckpointsSettings),
        ("features", FeaturesConfig),
    ):
        parts += [
            f"## `[{section}]`\n",
            title(section_class) + "\n",
            table(section, section_class) + "\n",
        ]
    parts.append(NOTES)
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
