"""``--log tensorboard``: epochs as scalars in the run's folder ``tensorboard``."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch.utils.tensorboard import SummaryWriter


class TensorBoard:
    """Writes event files, flushed after each epoch."""

    def __init__(self, run: Path, settings: Mapping[str, Any], first_epoch: int) -> None:
        begins = first_epoch == 1
        # Readers drop what they have of this step and later ones, from a run that is replaced too.
        self._writer: Any = SummaryWriter(
            str(run / "tensorboard"), purge_step=0 if begins else first_epoch
        )
        if begins:
            text = json.dumps(settings, indent=2, ensure_ascii=False)
            self._writer.add_text("settings", "    " + text.replace("\n", "\n    "), 0)

    def epoch(self, number: int, values: Mapping[str, float]) -> None:
        """Adds a scalar a value."""
        for name, value in values.items():
            self._writer.add_scalar(name, value, number)
        self._writer.flush()

    def close(self, exit_code: int) -> None:
        """Ends the file."""
        self._writer.close()


open_log = TensorBoard
