"""The masked and completed feature stores that jobs of a batch share."""

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
    """A store with masked vectors."""

    source: str
    modality: str
    rate: float
    pattern: str
    seed: int
    graph: str  # for patterns that count train triples; otherwise empty

    step: ClassVar[str] = "mask"

    @property
    def name(self) -> str:
        """The name of the file."""
        digest = digest_of([self.source, self.graph])
        return f"{self.modality}-{self.pattern}-{self.rate:g}-seed{self.seed}-{digest}.h5"

    def command(self, path: Path) -> list[str]:
        """The arguments of `mmkgc` that make the store."""
        arguments = [
            "features", "mask", self.source, "--rate", repr(self.rate), "--pattern",
            self.pattern, "--seed", str(self.seed), "--out", str(path),
        ]  # fmt: skip
        return [*arguments, "--graph", self.graph] if self.graph else arguments


@dataclass(frozen=True)
class Completed:
    """A completed store; the command applies `mask` and measures on the masked vectors."""

    source: str
    modality: str
    graph: str
    strategy: str
    variant: str
    seed: int
    settings: Mapping[str, Any]  # of a trained strategy: the preset and what differs from it
    trained: bool  # in a run, which is resumed after a kill
    mask: Masked | None
    allow_other_train: bool = False

    step: ClassVar[str] = "complete"

    @property
    def identity(self) -> dict[str, Any]:
        """Everything that determines the content."""
        return asdict(self)

    @property
    def name(self) -> str:
        """The name of the file."""
        words = [self.modality, self.strategy, self.variant]
        words += [f"{self.mask.rate:g}"] if self.mask else []
        return f"{'-'.join(words)}-seed{self.seed}-{digest_of(self.identity)}.h5"

    def command(self, path: Path) -> list[str]:
        """The arguments of `mmkgc` that make the store, or resume making it."""
        run = path.with_suffix(".run")
        if self.trained and RunDirectory(run).config.is_file():  # written when the run starts
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
            text = value if isinstance(value, str) else json.dumps(value)
            if key == "preset":
                arguments += ["--preset", text]
            else:
                arguments += ["--set", f"{self.strategy}.{key}={text}"]
        return arguments


def digest_of(value: Any) -> str:
    """Eight hexadecimal characters that identify a value."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=False, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:8]
