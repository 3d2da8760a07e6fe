"""The run directory: paths and lock of one run."""

from __future__ import annotations

import contextlib
import os
import platform
import shlex
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import metadata
from pathlib import Path
from typing import Any

from mmkgc_cli import __version__
from mmkgc_cli.errors import DataError, MmkgcError, UsageError
from mmkgc_cli.state import children, files
from mmkgc_cli.state.atomic import make_folder, storage_errors
from mmkgc_cli.state.locks import is_locked, try_lock

# Files of a run; --overwrite removes nothing else.
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
# Attempts to get the lock before another process is reported.
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
        """Versions, machine and command line of the training."""
        return self.path / "environment.json"

    @property
    def trace(self) -> Path:
        """The trace: one JSON line per event."""
        return self.path / "trace.jsonl"

    @property
    def wandb(self) -> Path:
        """The id of the W&B run, if the run is logged there."""
        return self.path / "wandb.json"

    @property
    def weights(self) -> Path:
        """The weights with the best valid MRR."""
        return self.path / "model.safetensors"

    @property
    def results(self) -> Path:
        """Metrics and their protocol."""
        return self.path / "results.json"

    @property
    def checkpoints(self) -> Path:
        """The folder of checkpoints."""
        return self.path / "checkpoints"

    @property
    def lock(self) -> Path:
        """Lock file of the process that trains the run."""
        return self.checkpoints / ".lock"

    def ranks(self, split: str) -> Path:
        """Ranks: one row per triple of `split` and side."""
        return self.path / f"ranks-{split}.tsv"

    def _present(self) -> list[str]:
        return [name for name in OWN_FILES if (self.path / name).exists()]

    def require_free(self, *, overwrite: bool) -> None:
        """Checks that a new run may be created here.

        Raises:
            UsageError: when a run exists and `overwrite` is False.
        """
        if not overwrite and self._present():
            raise UsageError(
                f"{self.path}: a run exists already",
                fix="choose another --run, or pass --overwrite",
            )

    def create(self, *, overwrite: bool) -> None:
        """Creates the directory for a new run, and removes the files of an old run.

        Raises:
            UsageError: when a run exists and `overwrite` is False.
            DataError: when the storage fails.
        """
        from mmkgc_cli.state.checkpoints import Checkpoints  # imports torch

        self.require_free(overwrite=overwrite)
        make_folder(self.path)
        for name in self._present():
            with storage_errors(self.path / name):
                files.unlink(self.path / name)
        with storage_errors(self.path):  # they must not return beside the new files
            files.sync_folder(self.path)
        Checkpoints(self.checkpoints, 1).clear()

    @contextlib.contextmanager
    def locked(self) -> Iterator[None]:
        """Locks the run for this process; the lock is released when the process ends.

        Raises:
            MmkgcError: when another process holds the lock.
        """
        make_folder(self.path)
        make_folder(self.lock.parent)
        for attempt in range(LOCK_ATTEMPTS):
            if attempt:  # `is_locked` in another process holds it for a moment
                time.sleep(0.05)
            if file := try_lock(self.lock):
                break
        else:
            raise MmkgcError(
                f"{self.path}: another process trains this run",
                fix="wait for it or stop it, or choose another --run",
            )
        with file:
            yield

    def is_locked(self) -> bool:
        """Whether a process trains this run."""
        return is_locked(self.lock)

    def require(self) -> None:
        """Checks that the directory contains a run.

        Raises:
            DataError: when it does not.
        """
        if not self.config.is_file():
            if self.lock.is_file():
                raise DataError(
                    f"{self.path}: the run stopped before its settings were written, so there is "
                    "nothing to resume",
                    fix="type its first command again, or remove it: mmkgc runs clean --failed "
                    f"{shlex.quote(str(self.path))}",
                )
            raise DataError(
                f"{self.path}: not a run directory (no config.toml)",
                fix="pass the folder of a run; `mmkgc runs list` shows runs",
            )


def environment() -> dict[str, Any]:
    """Versions, machine and command line, for ``environment.json``."""
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
    """Output of git in the checkout of this package; None when it is installed without one."""
    root = Path(__file__).resolve().parent.parent.parent
    if not (root / ".git").exists() or (call := children.git(root, *arguments)) is None:
        return None
    command, variables = call
    try:
        process = subprocess.run(
            command, env=variables, capture_output=True, text=True, timeout=10, check=True
        )  # fmt: skip
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
