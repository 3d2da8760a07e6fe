"""``--log tensorboard``: writes epochs as scalars to the folder ``tensorboard`` of the run."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes event files, flushed after each epoch."""

    def __init__(self, run: Path, settings: Mapping[str, Any], first_epoch: int) -> None:
        is_new = first_epoch == 1
        # Readers discard this step and later ones, also those of a run that was replaced.
        self._writer: Any = SummaryWriter(
            str(run / "tensorboard"), purge_step=0 if is_new else first_epoch
        )
        if is_new:
            text = json.dumps(settings, indent=2, ensure_ascii=False)
            self._writer.add_text("settings", "    " + text.replace("\n", "\n    "), 0)

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Adds one scalar per value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self, exit_code: int) -> None:
        """Closes the file."""
        self._writer.close()


open_log = TensorBoard
