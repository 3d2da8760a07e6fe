"""The directory of a batch: paths, states and results of its jobs; torch-free."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from enum import StrEnum
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError
from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.runs.status import Run, State, inspect
from mmkgc_cli.state.atomic import read_json, write_json
from mmkgc_cli.state.locks import is_locked


class JobState(StrEnum):
    """The state of a job."""

    waiting = "waiting"
    running = "running"
    interrupted = "interrupted"
    finished = "finished"
    failed = "failed"


@dataclass(frozen=True)
class Ending:
    """How a job ended; it is not run again unless asked for."""

    state: JobState  # finished or failed
    seconds: float  # of all attempts
    attempts: int
    step: str = ""  # the step that failed
    code: int = 0  # and its exit code
    message: str = ""


class JobFolder:
    """Paths of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = RunDirectory(path / "run")

    @property
    def name(self) -> str:
        """The name of the job, as in the plan."""
        return self.path.name

    @property
    def description(self) -> Path:
        """Axes and settings of the job, in JSON."""
        return self.path / "job.json"

    @property
    def config(self) -> Path:
        """Settings for `mmkgc train --config`."""
        return self.path / "job.toml"

    @property
    def log(self) -> Path:
        """The output of its commands."""
        return self.path / "log.txt"

    @property
    def ending(self) -> Path:
        """The record of its `Ending`."""
        return self.path / "ending.json"

    @property
    def effort(self) -> Path:
        """Attempts and seconds so far."""
        return self.path / "effort.json"

    @property
    def lock(self) -> Path:
        """Held by the process that runs the job and by its commands."""
        return self.path / ".lock"

    def ended(self) -> Ending | None:
        """The record of how the job ended; None before.

        Raises:
            DataError: when the record is damaged.
        """
        if not self.ending.is_file():
            return None
        record = read_json(self.ending)
        try:
            return Ending(**{**record, "state": JobState(record["state"])})
        except (TypeError, KeyError, ValueError):
            raise DataError(
                f"{self.ending}: damaged: not the record of a job",
                fix=f"remove it (rm {self.ending}) and run the batch again; the run is resumed",
            ) from None

    def end(self, ending: Ending) -> None:
        """Records how the job ended."""
        write_json(self.ending, asdict(ending))

    def efforts(self) -> tuple[int, float]:
        """Attempts and seconds so far; (0, 0.0) when the record is missing or damaged."""
        try:
            record = read_json(self.effort)
            return int(record["attempts"]), float(record["seconds"])
        except (DataError, KeyError, TypeError, ValueError):
            return 0, 0.0

    def state(self) -> JobState:
        """The state of the job now."""
        if ending := self.ended():
            return ending.state
        if is_locked(self.lock):
            return JobState.running
        return JobState.interrupted if self.effort.exists() else JobState.waiting

    def trained(self) -> Run:
        """Reads the current run of the job."""
        return inspect(self.run.path)


def is_ranked(run: Run, split: str) -> bool:
    """Whether the run has results of `split` for its current weights."""
    metrics = (run.results or {}).get("metrics")
    return isinstance(metrics, Mapping) and split in metrics and not run.outdated_results


def is_trained(run: Run) -> bool:
    """Whether the training has finished."""
    return run.state is State.finished


class BatchFolder:
    """``DIR/jobs/NAME/`` for each job, and ``DIR/stores/`` for stores that jobs share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def jobs(self) -> Path:
        """The folder of all jobs."""
        return self.path / "jobs"

    @property
    def stores(self) -> Path:
        """The folder of masked and completed stores."""
        return self.path / "stores"

    def job(self, name: str) -> JobFolder:
        """The folder of a job."""
        return JobFolder(self.jobs / name)

    def existing_jobs(self) -> list[JobFolder]:
        """The folders of the jobs by name; none before the batch has run."""
        if not self.jobs.is_dir():
            return []
        return [
            JobFolder(path) for path in sorted(self.jobs.iterdir()) if (path / "job.json").is_file()
        ]

    def job_folders(self) -> list[JobFolder]:
        """The folders of all jobs, by name.

        Raises:
            DataError: when this is not the directory of a batch.
        """
        if not self.jobs.is_dir():
            raise DataError(
                f"{self.path}: not the directory of a batch (no jobs/)",
                fix="name another directory, or run a batch: mmkgc batch RECIPE",
            )
        return self.existing_jobs()


def rows(folder: BatchFolder) -> list[dict[str, Any]]:
    """One row for each job: settings, state and results.

    Raises:
        DataError: when this is not the directory of a batch, or a record is damaged.
    """
    table = []
    for job in folder.job_folders():
        description = read_json(job.description)
        if not isinstance(description, dict):
            raise DataError(
                f"{job.description}: expected a JSON object",
                fix=f"remove it (rm {job.description}) and run the batch again",
            )
        split = description.get("split", "test")
        ending, state = job.ended(), job.state()
        attempts, seconds = job.efforts()
        row = {
            "job": job.name,
            **description,
            "state": state.value,
            "attempts": ending.attempts if ending else attempts,
            "seconds": round(ending.seconds if ending else seconds, 1),
            "message": ending.message if ending else "",
            "run": str(job.run.path),
            "metrics": {},
            "epochs": None,
        }
        if state is not JobState.waiting:
            run = job.trained()
            row["epochs"] = run.epochs
            results = run.results or {}
            if is_ranked(run, split):
                row["metrics"] = _realistic(results, split)
                row["valid_mrr"] = run.valid_mrr
        table.append(row)
    return table


def _realistic(results: Mapping[str, Any], split: str) -> dict[str, float]:
    metrics: Any = results.get("metrics")
    for key in (split, "both", "realistic"):
        metrics = metrics.get(key) if isinstance(metrics, Mapping) else None
    return dict(metrics) if isinstance(metrics, Mapping) else {}
