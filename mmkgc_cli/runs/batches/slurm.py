"""Shards of a batch as a job array of Slurm, by submitit (extra ``slurm``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import MmkgcError


def submit(
    recipe: Path,
    folder: Path,
    shards: int,
    max_minutes: float,
    retry: bool,
    cluster: str = "slurm",
) -> list[str]:
    """Submits one task a shard; ids as Slurm names them.

    Args:
        recipe: file of the recipe.
        folder: of the batch.
        shards: tasks of the array.
        max_minutes: see `running.Options`.
        retry: see there.
        cluster: another one of submitit's is ``local``: processes of this machine.

    Raises:
        MmkgcError: without submitit, or when it cannot submit.
    """
    try:
        import submitit
    except ImportError:
        raise MmkgcError("--executor slurm needs submitit: pip install 'mmkgc[slurm]'") from None
    commands = [
        [
            sys.executable, "-m", "mmkgc_cli", "batch", "run", str(recipe), "--out", str(folder),
            "--shard", f"{i}/{shards}", "--max-minutes", f"{max_minutes:g}",
            *(["--retry-failed"] if retry else []),
        ]
        for i in range(1, shards + 1)
    ]  # fmt: skip
    try:
        executor: Any = submitit.AutoExecutor(folder / "slurm", cluster=cluster)
        executor.update_parameters(slurm_array_parallelism=shards)
        tasks = executor.map_array(_run, commands)
    except Exception as error:  # whatever its cluster says
        raise MmkgcError(f"--executor slurm: {error}; is this a machine of a cluster?") from error
    return [str(task.job_id) for task in tasks]


def _run(command: list[str]) -> int:
    """What a task does; 4 says that some jobs failed, which their records tell."""
    code = subprocess.run(command, check=False).returncode
    if code not in (0, 4):
        raise RuntimeError(f"exit code {code}")
    return code
