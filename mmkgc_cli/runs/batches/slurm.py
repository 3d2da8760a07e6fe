"""Shards of a batch as a job array of Slurm, through submitit (extra ``slurm``)."""

from __future__ import annotations

import shlex
import subprocess
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import MmkgcError
from mmkgc_cli.runs.batches.processes import SWITCH
from mmkgc_cli.state import children


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
        children.mmkgc(
            "batch", "run", str(recipe), "--out", str(folder),
            "--shard", f"{i}/{shards}", "--max-minutes", f"{max_minutes:g}",
            *(["--retry-failed"] if retry else []),
        )
        for i in range(1, shards + 1)
    ]  # fmt: skip
    try:
        command = " ".join(map(shlex.quote, children.python()))
        executor: Any = submitit.AutoExecutor(
            folder / "slurm", cluster=cluster, slurm_python=command, local_python=command
        )
        executor.update_parameters(slurm_array_parallelism=shards)
        with children.inherited_environment():
            tasks = executor.map_array(_run, commands)
    except Exception as error:  # submitit raises errors of many types
        raise MmkgcError(
            f"--executor slurm: {error}",
            fix="submit from a machine of the cluster, or leave out --executor slurm",
        ) from error
    return [str(task.job_id) for task in tasks]


def _run(command: list[str]) -> int:
    """Runs a shard; exit code 4 (failed jobs) is a success, since records tell which failed."""
    environment = children.environment() | {SWITCH: "0"}
    code = subprocess.run(command, check=False, env=environment).returncode
    if code not in (0, 4):
        raise RuntimeError(f"exit code {code}")
    return code
