"""Shards of a batch as a job array of Slurm, through submitit (extra ``slurm``)."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.runs.batches.processes import COMMAND, SWITCH


def submit(
    recipe: Path,
    folder: Path,
    shards: int,
    max_minutes: float,
    *,
    retry: bool,
    cluster: str = "slurm",
) -> list[str]:
    """Submits one task for each shard; returns the ids that Slurm assigned.

    Args:
        recipe: file of the recipe.
        folder: directory of the batch.
        shards: number of tasks in the array.
        max_minutes: see `running.Options`.
        retry: see `running.Options`.
        cluster: ``slurm``, or ``local`` for processes of this machine.

    Raises:
        MmkgcError: without submitit, or when it cannot submit.
    """
    try:
        import submitit
    except ImportError:
        raise MmkgcError(
            "--executor slurm needs submitit, which is not installed",
            fix="install it: pip install 'mmkgc[slurm]'",
        ) from None
    commands = [
        [
            sys.executable, *COMMAND, "batch", "run", str(recipe), "--out", str(folder),
            "--shard", f"{i}/{shards}", "--max-minutes", f"{max_minutes:g}",
            *(["--retry-failed"] if retry else []),
        ]
        for i in range(1, shards + 1)
    ]  # fmt: skip
    try:
        executor: Any = submitit.AutoExecutor(folder / "slurm", cluster=cluster)
        executor.update_parameters(slurm_array_parallelism=shards)
        tasks = executor.map_array(_run, commands)
    except Exception as error:  # submitit raises errors of many types
        raise MmkgcError(
            f"--executor slurm: {error}",
            fix="submit from a machine of the cluster, or leave out --executor slurm",
        ) from error
    return [str(task.job_id) for task in tasks]


def _run(command: list[str]) -> int:
    """Runs a shard; exit code 4 (failed jobs) is a success, since records tell which failed."""
    code = subprocess.run(command, check=False, env=os.environ | {SWITCH: "0"}).returncode
    if code not in (0, 4):
        raise RuntimeError(f"exit code {code}")
    return code
