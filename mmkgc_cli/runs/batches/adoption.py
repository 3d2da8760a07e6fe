"""Jobs that a batch already has under another name: they are continued, not started again.

The name of a job has a digest of its settings as the recipe writes them. The same settings may be
written otherwise, as after `mmkgc config upgrade`; what counts then is the resolved configuration.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from mmkgc_cli.errors import DataError, MmkgcError
from mmkgc_cli.runs.batches.folder import BatchFolder, JobFolder
from mmkgc_cli.runs.batches.plan import Job
from mmkgc_cli.runs.config import resolve, values_of
from mmkgc_cli.runs.sections import FeaturesConfig, RunConfig
from mmkgc_cli.runs.toml_file import read_toml
from mmkgc_cli.runs.version_0_1 import is_of_0_1
from mmkgc_cli.sampling.registry import SAMPLERS
from mmkgc_cli.scoring.registry import SCORERS
from mmkgc_cli.state.atomic import read_json


def adopt(folder: BatchFolder, jobs: Sequence[Job]) -> list[Job]:
    """The jobs, with the names of existing folders where those have the same configuration.

    Raises:
        DataError: when the folder has jobs of mmkgc 0.1, with the command that rewrites them.
    """
    planned = {job.name for job in jobs}
    others = [job for job in folder.existing_jobs() if job.name not in planned]
    names = {key: job.name for job in others if (key := _key_of_folder(folder, job)) is not None}
    if not names:
        return list(jobs)
    return [
        job
        if folder.job(job.name).path.is_dir()
        else replace(job, name=names.get(_key(job.axes, job.config, _stores(job)), job.name))
        for job in jobs
    ]


def _stores(job: Job) -> dict[str, str]:
    return {store.modality: store.name for store in job.stores}


def _key_of_folder(folder: BatchFolder, job: JobFolder) -> str | None:
    """What identifies the job in a folder; None for what cannot be read."""
    try:
        file, record = read_toml(job.config), read_json(job.description)
    except DataError:
        return None
    if is_of_0_1(file.values):
        raise DataError(
            f"{folder.path}: the batch was made by mmkgc 0.1",
            fix=f"rewrite its settings with: mmkgc config upgrade {folder.path}",
        )
    scorer = file.values.get("scorer")
    if not isinstance(scorer, str) or not isinstance(record, dict):
        return None
    try:
        config = resolve(
            scorer, SCORERS.settings(scorer), file=file, settings_of_sampler=SAMPLERS.settings
        )
    except MmkgcError:
        return None
    axes = {k: v for k, v in record.items() if k not in ("varied", "split")}
    return _key(axes, config, {})


def _key(axes: Mapping[str, Any], config: RunConfig, stores: Mapping[str, str]) -> str:
    """Axes and resolved settings as one text; stores count by their names, wherever they are."""
    values = values_of(config)
    values["features"] = {
        key: value if key in FeaturesConfig.model_fields else Path(stores.get(key, str(value))).name
        for key, value in values["features"].items()
    }
    return json.dumps([dict(axes), values], sort_keys=True)
