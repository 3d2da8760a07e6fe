"""``--log wandb``: epochs to Weights & Biases, as its own settings and environment say."""

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
    """A run of W&B, whose id stays with ours so that a resumed training goes on in it."""

    def __init__(self, run: Path, settings: Mapping[str, Any], first_epoch: int) -> None:
        kept = RunDirectory(run).wandb
        if kept.is_file():
            name = read_json(kept)["id"]
        else:
            name = uuid.uuid4().hex[:12]
            write_json(kept, {"id": name})
        self._run = wandb.init(
            project=os.environ.get("WANDB_PROJECT", "mmkgc"),
            name=run.name,
            id=name,
            resume="allow",
            dir=str(run),
            config=dict(settings),
            settings=wandb.Settings(console="off"),
        )
        # Not W&B's own count of steps, which refuses epochs that come again after a kill.
        self._run.define_metric("*", step_metric="epoch")

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Logs all values at once."""
        self._run.log({"epoch": number, **values})

    def close(self, exit_code: int) -> None:
        """Ends the run as finished, or as failed."""
        self._run.finish(exit_code=exit_code)


open_log = WandB
