"""``--log wandb``: logs epochs to Weights & Biases, which reads its own settings."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import wandb

from mmkgc_cli.runs.directory import RunDirectory
from mmkgc_cli.state.atomic import read_json, write_json


class WandB:
    """A W&B run. Its id is saved in the run directory, so that a resumed training appends to it."""

    def __init__(self, run: Path, settings: Mapping[str, Any], first_epoch: int) -> None:
        id_file = RunDirectory(run).wandb
        if id_file.is_file():
            name = read_json(id_file)["id"]
        else:
            name = uuid.uuid4().hex[:12]
            write_json(id_file, {"id": name})
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mmkgc"),
            name=run.name,
            id=name,
            resume="allow",
            dir=str(run),
            config=dict(settings),
            settings=wandb.Settings(console="off"),
        )
        # The step counter of W&B rejects epochs that are repeated after a kill.
        self._run.define_metric("*", step_metric="epoch")

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Logs all values in one call."""
        self._run.log({"epoch": number, **values})

    def close(self, exit_code: int) -> None:
        """Marks the run as finished or failed."""
        self._run.finish(exit_code=exit_code)


open_log = WandB
