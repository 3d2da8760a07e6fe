"""Stores that the jobs of a batch share: with vectors taken away, or filled in."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, ClassVar

from mmkgc_cli.runs.directory import RunDirectory


@dataclass(frozen=True)
class Masked:
    """A store with vectors taken away."""

    source: str
    modality: str
    rate: float
    pattern: str
    seed: int
    graph: str  # whose train triples a pattern counts; empty where it counts none

    step: ClassVar[str] = "mask"

    @property
    def name(self) -> str:
        """Of the file."""
        digest = digest_of([self.source, self.graph])
        return f"{self.modality}-{self.pattern}-{self.rate:g}-seed{self.seed}-{digest}.h5"

    def command(self, path: Path) -> list[str]:
        """What makes it, for `mmkgc`."""
        arguments = [
            "features", "mask", self.source, "--rate", repr(self.rate), "--pattern",
            self.pattern, "--seed", str(self.seed), "--out", str(path),
        ]  # fmt: skip
        return [*arguments, "--graph", self.graph] if self.graph else arguments


@dataclass(frozen=True)
class Completed:
    """A store that was completed, after `mask` took vectors away: by the same command, which
    then measures on them.
    """

    source: str
    modality: str
    graph: str
    strategy: str
    variant: str
    seed: int
    settings: Mapping[str, Any]  # of one that is trained: the preset, and what differs from it
    trained: bool  # in a run, which goes on after a kill
    mask: Masked | None
    allow_other_train: bool = False

    step: ClassVar[str] = "complete"

    @property
    def identity(self) -> dict[str, Any]:
        """All that decides its content."""
        return asdict(self)

    @property
    def name(self) -> str:
        """Of the file."""
        words = [self.modality, self.strategy, self.variant]
        words += [f"{self.mask.rate:g}"] if self.mask else []
        return f"{'-'.join(words)}-seed{self.seed}-{digest_of(self.identity)}.h5"

    def command(self, path: Path) -> list[str]:
        """What makes it, or goes on making it, for `mmkgc`."""
        run = path.with_suffix(".run")
        if self.trained and RunDirectory(run).config.is_file():  # which is written at once
            return ["complete", "--resume", str(run)]
        arguments = [
            "complete", self.modality, "--graph", self.graph, "--features", self.source,
            "--strategy", self.strategy, "--variant", self.variant, "--seed", str(self.seed),
            "--out", str(path), "--overwrite",
        ]  # fmt: skip
        if self.mask:
            arguments += [
                "--missing-rate", repr(self.mask.rate), "--mask-seed", str(self.mask.seed),
                "--pattern", self.mask.pattern,
            ]  # fmt: skip
        if self.allow_other_train:
            arguments.append("--allow-other-train")
        if self.trained:
            arguments += ["--run", str(run)]
        for key, value in self.settings.items():
            said = value if isinstance(value, str) else json.dumps(value)
            if key == "preset":
                arguments += ["--preset", said]
            else:
                arguments += ["--set", f"{self.strategy}.{key}={said}"]
        return arguments


def digest_of(value: Any) -> str:
    """Eight characters that tell values apart."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
