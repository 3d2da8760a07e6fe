"""Rewrites files of mmkgc 0.1 with the present names of settings."""

from __future__ import annotations

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.runs.toml_file import Keys, read_toml, statements
from mmkgc_cli.state.atomic import read_json, read_text, write_json, write_text
from mmkgc_cli.training.settings import DEFAULT_NAMES, variants

# Settings that were in [training] in 0.1, and their present names.
MOVED: Mapping[str, str] = {
    "training.negatives": "negatives.count",
    "training.sampler": "negatives.sampler",
    "training.negative_sampling": "negatives.sampling",
    "training.negative_side": "negatives.corrupted_side",
    "training.loss": "loss.name",
    "training.adversarial_temperature": "loss.temperature",
    "training.loss_margin": "loss.margin",
    "training.negative_reduction": "loss.reduction",
    "training.entropy_thresholds": "loss.thresholds",
    "training.entropy_weights": "loss.weights",
    "training.entropy_one_sided": "loss.one_sided",
    "training.label_smoothing": "loss.label_smoothing",
    "training.label_smoothing_adds": "loss.label_smoothing_adds",
    "training.optimizer": "optimizer.name",
    "training.lr": "optimizer.lr",
    "training.weight_decay": "optimizer.weight_decay",
    "training.clip_norm": "optimizer.clip_norm",
    "training.average": "optimizer.average",
    "training.schedule": "schedule.name",
    "training.warmup_epochs": "schedule.warmup_epochs",
    "training.decay": "schedule.decay",
    "training.eval_every": "validation.every",
    "training.eval_sample": "validation.sample",
    "training.patience": "validation.patience",
    "training.checkpoint_seconds": "checkpoints.seconds",
    "training.keep_checkpoints": "checkpoints.keep",
}
# Tables of a batch recipe that contain sections of settings.
_NESTED = ("settings", "grid")
_NESTED_BY_NAME = ("scorer",)
_ARRAYS = ("include", "exclude", "expect")


def is_of_0_1(values: Mapping[str, Any]) -> bool:
    """Whether a configuration or a batch recipe contains names of 0.1."""
    return any(
        f"training.{key}" in MOVED
        for table in _tables(values)
        if isinstance(training := table.get("training"), Mapping)
        for key in training
    )


def _tables(values: Mapping[str, Any]) -> Iterator[Any]:
    """Returns the tables of a file that contain sections of settings."""
    yield values
    tables = [values.get(name) for name in _NESTED]
    tables += [
        table
        for name in _NESTED_BY_NAME
        if isinstance(values.get(name), Mapping)
        for table in values[name].values()
    ]
    for name in _ARRAYS:
        entries = values.get(name)
        tables += entries if isinstance(entries, list) else []
    yield from (table for table in tables if isinstance(table, Mapping))


def upgrade_text(text: str) -> tuple[str, list[str]]:
    """Rewrites a configuration or a batch recipe, statement by statement; comments are kept.

    Returns:
        The new text, and the 0.1 names of removed settings: those without effect under the method
        that the same table selects.
    """
    values = tomllib.loads(text)
    dropped: list[str] = []
    blocks: list[_Block] = [_Block("", ())]
    pending = ""  # comments and blank lines before a statement
    for statement in statements(text):
        if not statement.keys and not statement.is_header:
            pending += statement.text
        elif statement.is_header:
            blocks.append(_Block(pending + statement.text, statement.table))
            pending = ""
        else:
            table = _lookup(values, statement.table)
            blocks[-1].add(pending + statement.text, statement.keys, table, dropped)
            pending = ""
    return "".join(block.text() for block in blocks) + pending, dropped


class _Block:
    """The statements under one header, grouped by their present section."""

    def __init__(self, header: str, table: Keys) -> None:
        self.header, self.table = header, table
        self.sections: dict[str, str] = {"": ""}

    def add(
        self, text: str, keys: Sequence[str], table: Mapping[str, Any], dropped: list[str]
    ) -> None:
        """Adds a statement under its present name, or removes it if it has no effect."""
        in_training = bool(self.table) and self.table[-1] == "training"
        path = ("training", *keys) if in_training else tuple(keys)
        if path == ("training",):  # an inline table; `upgrade` refuses what is left of it
            self.sections[""] += text
            return
        old = ".".join(path[:2])
        if path[0] != "training" or old not in MOVED:
            self.sections[""] += text
            return
        training = table if in_training else table["training"]
        if path[1] in _unused(training):
            dropped.append(old)
            return
        section, _, key = MOVED[old].partition(".")
        if in_training:
            renamed = re.sub(rf"(?m)^(\s*){path[1]}(\s*=)", rf"\g<1>{key}\g<2>", text, count=1)
            self.sections[section] = self.sections.get(section, "") + renamed
        else:
            pattern = rf"(?m)^(\s*)training\s*\.\s*{path[1]}(\s*=)"
            self.sections[""] += re.sub(pattern, rf"\g<1>{section}.{key}\g<2>", text, count=1)

    def text(self) -> str:
        """Returns the block, followed by a block for each new section."""
        parts = [self.header + self.sections[""]]
        if not self.sections[""].strip() and len(self.sections) > 1:
            parts = [self.header[: len(self.header) - len(self.header.lstrip())]]
            parts[0] += "".join(f"{line}\n" for line in self.header.strip().splitlines()[:-1])
        outer = [key for key in self.table[:-1] if isinstance(key, str)]
        name = "".join(f"{_toml_key(key)}." for key in outer)
        for section, statements_text in self.sections.items():
            if section:
                gap = "" if not "".join(parts).strip() or parts[-1].endswith("\n\n") else "\n"
                parts.append(f"{gap}[{name}{section}]\n{statements_text}")
        return "".join(parts)


def _toml_key(key: str) -> str:
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key, ensure_ascii=False)


def _lookup(values: Any, keys: Keys) -> Any:
    for key in keys:
        values = values[key]
    return values


def _unused(training: Mapping[str, Any]) -> set[str]:
    """Returns keys without effect under the methods that the same table selects."""
    candidates = str(training.get("candidates", "sampled"))
    unused: set[str] = set()
    for key in training:
        section, _, new_key = MOVED.get(f"training.{key}", "").partition(".")
        if section == "negatives" and candidates == "all":
            unused.add(key)
        if section not in DEFAULT_NAMES or new_key == "name":
            continue
        # If this table does not select a method, another one does.
        selecting = {"loss": "loss", "optimizer": "optimizer", "schedule": "schedule"}[section]
        if selecting not in training:
            continue
        section_class = variants(section, candidates).get(str(training[selecting]))
        if section_class and new_key not in section_class.model_fields:
            unused.add(key)
    reduced = training.get("loss") in ("entropy-weighted", "bce") and candidates == "sampled"
    if reduced and training.get("negative_reduction", "mean") != "self-adversarial":
        unused |= {"adversarial_temperature"} & training.keys()
    if candidates == "all" and not training.get("label_smoothing"):
        unused |= {"label_smoothing_adds"} & training.keys()
    return unused


def upgrade(path: Path) -> list[str]:
    """Rewrites a TOML file, a run directory or the directory of a batch.

    Finished jobs, checkpoints and names of tensors do not change. Files without names of 0.1 are
    not written.

    Returns:
        A line for each rewritten file.

    Raises:
        DataError: when `path` is none of these.
    """
    if path.is_file():
        return _upgrade_file(path)
    if (path / "jobs").is_dir():
        lines = []
        for job in sorted((path / "jobs").iterdir()):
            lines += _upgrade_job(job)
        return lines
    if (path / "config.toml").is_file():
        return _upgrade_file(path / "config.toml")
    raise DataError(
        f"{path}: neither a TOML file, nor a run directory, nor the directory of a batch",
        fix="pass the path of one of them",
    )


def _upgrade_file(path: Path) -> list[str]:
    if not is_of_0_1(read_toml(path).values):
        return []
    new_text, dropped = upgrade_text(read_text(path))
    _check_rewritten(path, new_text)
    write_text(path, new_text)
    without = f", without {', '.join(dropped)}, which had no effect" if dropped else ""
    return [f"{path}: rewritten{without}"]


def _check_rewritten(path: Path, text: str) -> None:
    """Checks that a rewritten file is TOML without names of 0.1.

    Statements are rewritten as text, which fails for unusual forms such as inline tables and quoted
    keys.

    Raises:
        DataError: it is not.
    """
    try:
        is_left = is_of_0_1(tomllib.loads(text))
    except tomllib.TOMLDecodeError:
        is_left = True
    if is_left:
        raise DataError(
            f"{path}: has settings in a form that cannot be rewritten",
            fix="write each setting on a line of its own below a [training] header, and upgrade "
            "again",
        )


def _upgrade_job(job: Path) -> list[str]:
    lines = _upgrade_file(job / "job.toml") if (job / "job.toml").is_file() else []
    if (job / "run" / "config.toml").is_file():
        lines += _upgrade_file(job / "run" / "config.toml")
    record = job / "job.json"
    if record.is_file():
        values = read_json(record)
        varied = values.get("varied") if isinstance(values, dict) else None
        if isinstance(varied, dict) and any(key in MOVED for key in varied):
            values["varied"] = {MOVED.get(key, key): value for key, value in varied.items()}
            write_json(record, values)
            lines.append(f"{record}: rewritten")
    return lines
