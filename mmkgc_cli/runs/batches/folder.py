"""The directory of a batch: what its jobs left there, found out without torch."""

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
    """What became of a job."""

    waiting = "waiting"
    running = "running"
    interrupted = "interrupted"
    finished = "finished"
    failed = "failed"


@dataclass(frozen=True)
class Ending:
    """How a job ended; it is not run again."""

    state: JobState  # finished or failed
    seconds: float  # that it ran, over all attempts
    attempts: int
    step: str = ""  # that failed
    code: int = 0  # its exit code
    message: str = ""


class JobFolder:
    """Paths of one job."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.run = RunDirectory(path / "run")

    @property
    def name(self) -> str:
        """As in the plan."""
        return self.path.name

    @property
    def about(self) -> Path:
        """What the job is, in JSON."""
        return self.path / "job.json"

    @property
    def config(self) -> Path:
        """What it is trained with, for `mmkgc train --config`."""
        return self.path / "job.toml"

    @property
    def log(self) -> Path:
        """What its commands said."""
        return self.path / "log.txt"

    @property
    def ending(self) -> Path:
        """How it ended."""
        return self.path / "ending.json"

    @property
    def effort(self) -> Path:
        """How often and how long it was run so far."""
        return self.path / "effort.json"

    @property
    def lock(self) -> Path:
        """Held by who runs the job, and by its commands."""
        return self.path / ".lock"

    def ended(self) -> Ending | None:
        """How it ended; None while it has not.

        Raises:
            DataError: when the record is damaged.
        """
        if not self.ending.is_file():
            return None
        found = read_json(self.ending)
        try:
            return Ending(**{**found, "state": JobState(found["state"])})
        except (TypeError, KeyError, ValueError):
            raise DataError(
                f"{self.ending}: damaged; remove it, and the job goes on from its run"
            ) from None

    def end(self, ending: Ending) -> None:
        """Records how it ended."""
        write_json(self.ending, asdict(ending))

    def efforts(self) -> tuple[int, float]:
        """Attempts so far and the seconds that they took; what is damaged counts for nothing."""
        try:
            found = read_json(self.effort)
            return int(found["attempts"]), float(found["seconds"])
        except (DataError, KeyError, TypeError, ValueError):
            return 0, 0.0

    def state(self) -> JobState:
        """What became of it so far."""
        if ending := self.ended():
            return ending.state
        if is_locked(self.lock):
            return JobState.running
        return JobState.interrupted if self.effort.exists() else JobState.waiting

    def trained(self) -> Run:
        """Its run as it is now."""
        return inspect(self.run.path)


def is_ranked(run: Run, split: str) -> bool:
    """Whether a trained run has results of `split`, of the weights that it has now."""
    metrics = (run.results or {}).get("metrics")
    return isinstance(metrics, Mapping) and split in metrics and not run.outdated_results


def is_trained(run: Run) -> bool:
    """Whether the training came to its end."""
    return run.state is State.finished


class BatchFolder:
    """``DIR/jobs/NAME/`` for each job, ``DIR/stores/`` for what jobs share."""

    def __init__(self, path: Path) -> None:
        self.path = path

    @property
    def jobs(self) -> Path:
        """Where the jobs are."""
        return self.path / "jobs"

    @property
    def stores(self) -> Path:
        """Where stores with vectors taken away are."""
        return self.path / "stores"

    def job(self, name: str) -> JobFolder:
        """The folder of a job."""
        return JobFolder(self.jobs / name)

    def existing(self) -> list[JobFolder]:
        """The jobs of the batch by name; none before it has run."""
        if not self.jobs.is_dir():
            return []
        return [
            JobFolder(path) for path in sorted(self.jobs.iterdir()) if (path / "job.json").is_file()
        ]

    def found(self) -> list[JobFolder]:
        """The jobs of a batch that has run, by name.

        Raises:
            DataError: when it is no directory of a batch.
        """
        if not self.jobs.is_dir():
            raise DataError(f"{self.path}: no batch there (no jobs/); run one: mmkgc batch RECIPE")
        return self.existing()


def rows(folder: BatchFolder) -> list[dict[str, Any]]:
    """Every job with its settings, state and, where there are some, results.

    Raises:
        DataError: when it is no directory of a batch, or a record is damaged.
    """
    found = []
    for job in folder.found():
        about = read_json(job.about)
        if not isinstance(about, dict):
            raise DataError(f"{job.about}: not a JSON object")
        ending, state = job.ended(), job.state()
        attempts, seconds = job.efforts()
        row = {
            "job": job.name,
            **about,
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
            if is_ranked(run, about.get("split", "test")):
                row["metrics"] = _realistic(results, about.get("split", "test"))
                row["valid_mrr"] = run.valid_mrr
        found.append(row)
    return found


def _realistic(results: Mapping[str, Any], split: str) -> dict[str, float]:
    found: Any = results.get("metrics")
    for key in (split, "both", "realistic"):
        found = found.get(key) if isinstance(found, Mapping) else None
    return dict(found) if isinstance(found, Mapping) else {}
