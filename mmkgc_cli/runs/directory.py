"""A run directory: where everything about one run is written and found again."""

from __future__ import annotations

import contextlib
import os
import platform
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from mmkgc_cli import __version__
from mmkgc_cli.errors import DataError, MmkgcError, UsageError
from mmkgc_cli.state.atomic import make_folder, storage_errors
from mmkgc_cli.state.locks import is_locked, try_lock

# Everything a run writes; nothing else is ever removed by --overwrite.
OWN_FILES = (
    "config.toml",
    "environment.json",
    "trace.jsonl",
    "model.safetensors",
    "results.json",
    "ranks-valid.tsv",
    "ranks-test.tsv",
    "wandb.json",
)
# How often to ask for the lock before somebody else is said to hold it.
LOCK_ATTEMPTS = 5


class RunDirectory:
    """Paths of one run."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def config(self) -> Path:
        """The resolved configuration."""
        return self.path / "config.toml"

    @property
    def environment(self) -> Path:
        """Versions, machine and command of the training."""
        return self.path / "environment.json"

    @property
    def trace(self) -> Path:
        """One JSON line an event."""
        return self.path / "trace.jsonl"

    @property
    def wandb(self) -> Path:
        """The id of the run in W&B, where it is logged."""
        return self.path / "wandb.json"

    @property
    def weights(self) -> Path:
        """The weights that ranked valid best."""
        return self.path / "model.safetensors"

    @property
    def results(self) -> Path:
        """Metrics and the protocol they were made under."""
        return self.path / "results.json"

    @property
    def checkpoints(self) -> Path:
        """What a training goes on from."""
        return self.path / "checkpoints"

    @property
    def lock(self) -> Path:
        """Held by the process that trains the run."""
        return self.checkpoints / ".lock"

    def ranks(self, split: str) -> Path:
        """One row per triple of `split` and side."""
        return self.path / f"ranks-{split}.tsv"

    def _present(self) -> list[str]:
        return [name for name in OWN_FILES if (self.path / name).exists()]

    def require_free(self, overwrite: bool) -> None:
        """Whether a new run may be made here.

        Raises:
            UsageError: when a run is there already and `overwrite` is off.
        """
        if not overwrite and self._present():
            raise UsageError(
                f"{self.path}: holds a run already; choose another --run, or pass --overwrite"
            )

    def create(self, overwrite: bool) -> None:
        """Makes the directory ready for a new run.

        Raises:
            UsageError: when a run is there already and `overwrite` is off.
            DataError: when the storage refuses.
        """
        from mmkgc_cli.state.checkpoints import Checkpoints  # torch: not for who only looks

        self.require_free(overwrite)
        make_folder(self.path)
        for name in self._present():
            with storage_errors(self.path / name):
                (self.path / name).unlink()
        Checkpoints(self.checkpoints, 1).clear()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """The run for this process alone; the lock goes with the process, however it ends.

        Raises:
            MmkgcError: while another process trains it.
        """
        make_folder(self.path)  # or says that it is a file
        make_folder(self.lock.parent)
        for attempt in range(LOCK_ATTEMPTS):
            if attempt:  # somebody may only have looked, see `is_locked`
                time.sleep(0.05)
            if file := try_lock(self.lock):
                break
        else:
            raise MmkgcError(f"{self.path}: another process trains this run")
        with file:
            yield

    def is_locked(self) -> bool:
        """Whether a process trains this run; `locked` waits out who asks."""
        return is_locked(self.lock)

    def require(self) -> None:
        """Checks that a run is there.

        Raises:
            DataError: when it is not.
        """
        if not self.config.is_file():
            raise DataError(f"{self.path}: no run there (no config.toml); train one first")


def environment() -> dict[str, Any]:
    """Versions, machine and command, for the record of a run."""
    import torch

    from mmkgc_cli import ops

    return {
        "mmkgc": __version__,
        "commit": _git("rev-parse", "HEAD"),
        "changed_files": len((_git("status", "--porcelain") or "").splitlines()),
        "command": [Path(sys.argv[0]).name, *sys.argv[1:]],
        "python": platform.python_version(),
        "platform": platform.platform(),
        "processors": os.cpu_count(),
        "threads": torch.get_num_threads(),
        "packages": {name: metadata.version(name) for name in ("torch", "numpy", "h5py")},
        "cuda": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "native": {name: ops.backend_of(name, "cpu")[0] for name in ops.OPS},
    }


def _git(*arguments: str) -> str | None:
    """What git says of the checkout this package runs from; None when it runs from none."""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists():
        return None
    try:
        done = subprocess.run(
            ["git", "-C", str(root), *arguments],
            capture_output=True, text=True, timeout=10, check=True,
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
